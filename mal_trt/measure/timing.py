"""How long a batch takes in the network alone: on the wall clock, or between CUDA events where the GPU can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice, pairwise
from typing import Any, Protocol

import numpy as np

from mal_trt.backends import Backend, DeviceBackend
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.geometry.boxes import SizeClass

FEWEST = 5  # timed runs, however long one takes
QUEUED = 16  # runs queued on a GPU at once, so that it never waits for the host
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Budget:
    """How long to time. warm_up: runs before, within `seconds`. runs: how many; None is as many as fit `seconds`, but
    FEWEST at least.
    """

    warm_up: int = 10
    runs: int | None = None
    seconds: float = 2.0


Sample = tuple[SizeClass, float]  # of one run: what boxes, how many seconds


class Stopwatch(Protocol):
    """Times runs of one batch, whose content does not change. clock: what it reads. chunk: runs timed in one go."""

    clock: str
    chunk: int

    def time(self, sizes: Sequence[SizeClass]) -> list[float]:
        """Seconds of one run for each size class given, in that order. RunError or MemoryError if one fails."""
        ...

    def close(self) -> None:
        """Free what the runs needed."""
        ...


def open_stopwatch(
    backend: Backend, crops: np.ndarray | Mapping[SizeClass, np.ndarray], weights: str | None = None
) -> Stopwatch:
    """A stopwatch for a batch of crops, [N,3,S,S] of the model's type, or of each size class its own: on the GPU if
    runs can be queued there."""
    if isinstance(crops, Mapping):
        return SizedStopwatch({size: open_stopwatch(backend, own, weights) for size, own in crops.items()})
    return (
        DeviceStopwatch(backend, crops, weights)
        if isinstance(backend, DeviceBackend)
        else HostStopwatch(backend, crops, weights)
    )


class SizedStopwatch:
    """A stopwatch for each size class, because its crops have a side of their own."""

    chunk = 1

    def __init__(self, stopwatches: Mapping[SizeClass, Stopwatch]) -> None:
        self._stopwatches = stopwatches
        self.clock = next(iter(stopwatches.values())).clock

    def time(self, sizes: Sequence[SizeClass]) -> list[float]:
        """See `Stopwatch.time`."""
        return [self._stopwatches[size].time([size])[0] for size in sizes]

    def close(self) -> None:
        """See `Stopwatch.close`."""
        for stopwatch in self._stopwatches.values():
            stopwatch.close()


class HostStopwatch:
    """Crops and logits in the processor's memory: what copies a run needs are part of it."""

    clock = "wall clock"
    chunk = 1

    def __init__(
        self,
        backend: Backend,
        crops: np.ndarray,
        weights: str | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend, self._crops, self._weights, self._now = backend, crops, weights, now

    def time(self, sizes: Sequence[SizeClass]) -> list[float]:
        """See `Stopwatch.time`."""
        seconds = []
        for size in sizes:
            began = self._now()
            self._backend.run(self._crops, size, self._weights)
            seconds.append(self._now() - began)
        return seconds

    def close(self) -> None:
        """See `Stopwatch.close`."""


class DeviceStopwatch:
    """Crops and logits stay on the GPU; an event before and after each run, all queued on one stream."""

    clock = "CUDA events"
    chunk = QUEUED

    def __init__(self, backend: DeviceBackend, crops: np.ndarray, weights: str | None = None) -> None:
        self._backend, self._weights, self._count = backend, weights, len(crops)
        self._driver = backend.driver
        self._image, self._logits = DeviceBuffer(self._driver), DeviceBuffer(self._driver)
        self._stream = 0
        side = max(backend.logits_side(size) for size in SizeClass)
        count = max(len(crops), *(backend.least(size) for size in SizeClass))
        try:
            with self._driver.current():
                self._stream = self._driver.create_stream()
                self._image.reserve(crops.nbytes // len(crops) * count)
                self._logits.reserve(4 * count * side * side)
                self._driver.copy_to_device(self._image.pointer, np.ascontiguousarray(crops), self._stream)
                self._driver.synchronize(self._stream)
        except BaseException:
            self.close()
            raise

    def time(self, sizes: Sequence[SizeClass]) -> list[float]:
        """See `Stopwatch.time`."""
        driver, events = self._driver, []
        with driver.current():
            try:
                for _ in range(len(sizes) + 1):
                    events.append(driver.create_event(timing=True))
                self._enqueue(sizes[0])  # not timed: behind it the first timed run waits for no host
                driver.record(events[0], self._stream)
                for size, event in zip(sizes, events[1:], strict=True):
                    self._enqueue(size)
                    driver.record(event, self._stream)
                driver.synchronize(self._stream)
                return [driver.elapsed(first, second) for first, second in pairwise(events)]
            finally:
                for event in events:
                    driver.destroy_event(event)

    def _enqueue(self, size: SizeClass) -> None:
        self._backend.enqueue(self._image.pointer, self._logits.pointer, self._count, size, self._stream, self._weights)

    def close(self) -> None:
        """See `Stopwatch.close`."""
        with self._driver.current():
            stream, self._stream = self._stream, 0
            try:
                if stream:
                    self._driver.destroy_stream(stream)
            finally:
                self._image.close()
                self._logits.close()


def measure(
    stopwatch: Stopwatch,
    shares: Mapping[SizeClass, float],
    budget: Budget,
    now: Callable[[], float] = time.perf_counter,
) -> list[Sample]:
    """Time runs of size classes in proportion to their shares, after every one of them has been warmed up."""
    began = now()
    for done, size in enumerate(islice(cycle(shares), max(budget.warm_up, len(shares))), 1):
        stopwatch.time([size])
        if done >= len(shares) and now() - began > budget.seconds:
            break
    order = in_proportion(shares)
    samples: list[Sample] = []
    began = now()
    while budget.runs is None or len(samples) < budget.runs:
        if budget.runs is None and len(samples) >= FEWEST and now() - began >= budget.seconds:
            break
        left = stopwatch.chunk if budget.runs is None else min(stopwatch.chunk, budget.runs - len(samples))
        sizes = list(islice(order, left))
        samples += zip(sizes, stopwatch.time(sizes), strict=True)
    return samples


def in_proportion(shares: Mapping[SizeClass, float]) -> Iterator[SizeClass]:
    """Size classes without end, each as often as its share (they add up to 1), spread evenly."""
    done = dict.fromkeys(shares, 0)
    for turn in count(1):
        size = max(shares, key=lambda size: shares[size] * turn - done[size])
        done[size] += 1
        yield size


def figures(samples: Sequence[Sample], batch: int) -> dict[str, Any]:
    """Figures of timed runs of one batch size: how many, of what boxes, latency in milliseconds, boxes a second."""
    seconds = np.array([second for _, second in samples])
    marks = np.percentile(seconds, PERCENTILES)
    by_size = {size: [second for other, second in samples if other is size] for size in SizeClass}
    return {
        "runs": len(samples),
        "runs_by_size": {size.name.lower(): len(found) for size, found in by_size.items() if found},
        "boxes_per_s_by_size": {
            size.name.lower(): batch * len(found) / sum(found) for size, found in by_size.items() if found
        },
        "mean_ms": 1e3 * float(seconds.mean()),
        **{f"p{percent}_ms": 1e3 * float(mark) for percent, mark in zip(PERCENTILES, marks, strict=True)},
        "boxes_per_s": batch * len(samples) / float(seconds.sum()),
    }
