"""Timing: percentiles, units and shares that can be worked out by hand, on a clock that goes on only when told."""

from __future__ import annotations

from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import pytest

from host_cuda import HostDriver
from mal_trt.cuda.driver import CudaError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.measure.timing import (
    FEWEST,
    QUEUED,
    Budget,
    DeviceStopwatch,
    HostStopwatch,
    figures,
    in_proportion,
    measure,
)

SMALL, MEDIUM, LARGE = SizeClass


class Clock:
    """A clock that goes on only when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Network:
    """A backend whose runs take as long as they are told: `takes` in order, then the last of them."""

    contract: Any = None
    provider = "test double"
    outputs = ("logits",)
    precision, notes = "fp32", ()

    def __init__(self, clock: Clock, *takes: float) -> None:
        self.clock, self._takes = clock, chain(takes, repeat(takes[-1]))
        self.seen: list[tuple[int, SizeClass, str | None]] = []

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        self.seen.append((len(image), size, weights))
        self.clock.seconds += next(self._takes)
        return np.zeros((len(image), 1, 16, 16), np.float32)

    def close(self) -> None: ...


def crops(count: int = 4) -> np.ndarray:
    return np.arange(count * 3 * 64 * 64, dtype=np.uint8).reshape(count, 3, 64, 64)


def test_percentiles_are_of_single_runs_in_milliseconds() -> None:
    found = figures([(LARGE, n / 1000) for n in range(1, 102)], batch=8)  # 1 to 101 ms
    assert (found["p50_ms"], found["p90_ms"], found["p99_ms"]) == pytest.approx((51, 91, 100))
    assert (found["mean_ms"], found["runs"], found["runs_by_size"]) == (pytest.approx(51), 101, {"large": 101})
    assert found["boxes_per_s"] == pytest.approx(8 * 101 / (101 * 0.051))


def test_warm_up_does_not_count() -> None:
    clock = Clock()
    network = Network(clock, 9.0, 9.0, 0.5)
    samples = measure(HostStopwatch(network, crops(), "teacher", clock), {LARGE: 1.0}, Budget(2, 3, 60.0), clock)
    assert samples == [(LARGE, 0.5)] * 3
    assert network.seen == [(4, LARGE, "teacher")] * 5
    assert figures(samples, 4)["boxes_per_s"] == pytest.approx(8)


def test_time_budget() -> None:
    clock = Clock()
    stopwatch = HostStopwatch(Network(clock, 0.25), crops(), None, clock)
    assert len(measure(stopwatch, {LARGE: 1.0}, Budget(1, None, 4.0), clock)) == 16
    slow = HostStopwatch(Network(clock, 60.0), crops(), None, clock)
    began = clock()
    assert len(measure(slow, {LARGE: 1.0}, Budget(10, None, 2.0), clock)) == FEWEST
    assert clock() - began == 60 * (FEWEST + 1)  # one warm-up run was over the budget already


def test_every_size_is_warmed_up_and_timed_in_its_share() -> None:
    clock = Clock()
    network = Network(clock, 1.0)
    shares = {SMALL: 0.5, MEDIUM: 0.3, LARGE: 0.2}
    samples = measure(HostStopwatch(network, crops(), None, clock), shares, Budget(0, 20), clock)
    assert [size for _, size, _ in network.seen[:3]] == [SMALL, MEDIUM, LARGE]
    assert figures(samples, 1)["runs_by_size"] == {"small": 10, "medium": 6, "large": 4}
    for length in range(1, 40):  # at no time is any of them far from its share
        order = list(islice(in_proportion(shares), length))
        assert all(abs(order.count(size) - share * length) < 1.5 for size, share in shares.items())


class Device(HostDriver):
    """The double, with a clock that the queued work moves."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(**options)
        self.clock, self.stamps = clock, dict[int, float]()

    def record(self, event: int, stream: int) -> None:
        super().record(event, stream)
        self.enqueue(stream, lambda: self.stamps.__setitem__(event, self.clock()))

    def elapsed(self, first: int, second: int) -> float:
        super().elapsed(first, second)
        return self.stamps[second] - self.stamps[first]


class DeviceNetwork(Network):
    """A device backend; `run`, which would copy, must not be asked."""

    def __init__(self, driver: Device, *takes: float) -> None:
        super().__init__(driver.clock, *takes)
        self.driver, self.images = driver, list[bytes]()

    def most(self, size: SizeClass) -> int:
        return 32

    def least(self, size: SizeClass) -> int:
        return 8

    def logits_side(self, size: SizeClass) -> int:
        return 16

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        raise AssertionError("copies are no part of the network")

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        self.seen.append((count, size, weights))
        takes = next(self._takes)

        def work() -> None:
            read = self.driver.host.array(image, np.uint8, (max(count, 8), 3, 64, 64))
            self.images.append(read[:count].tobytes())
            self.driver.host.array(logits, np.float32, (max(count, 8), 1, 16, 16))[:] = 0
            self.clock.seconds += takes

        self.driver.enqueue(stream, work)


@pytest.mark.parametrize("mode", ["eager", "deferred"])
def test_a_gpu_is_timed_by_its_events(mode: str) -> None:
    driver = Device(Clock(), mode=mode)
    network = DeviceNetwork(driver, 5.0, 7.0, *(n / 100 for n in range(1, 11)))
    stopwatch = DeviceStopwatch(network, crops(), "student")
    samples = measure(stopwatch, {MEDIUM: 1.0}, Budget(0, 6), Clock())
    # Of the warm-up (5 s, not timed, and 7 s) and of the timed chunk the first run leads and is not timed.
    assert [seconds for _, seconds in samples] == pytest.approx([n / 100 for n in range(2, 8)])
    assert network.seen == [(4, MEDIUM, "student")] * 9
    assert set(network.images) == {crops().tobytes()}
    assert (stopwatch.clock, stopwatch.chunk) == ("CUDA events", QUEUED)
    stopwatch.close()
    assert not any(driver.living.values())


def test_a_gpu_that_fails_leaves_nothing_behind() -> None:
    driver = Device(Clock())
    driver.fail_on("allocate", nth=2, code="CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(CudaError, match="OUT_OF_MEMORY"):
        DeviceStopwatch(DeviceNetwork(driver, 1.0), crops())
    stopwatch = DeviceStopwatch(DeviceNetwork(driver, 1.0), crops())
    driver.fail_on("synchronize")
    with pytest.raises(CudaError):
        stopwatch.time([LARGE, LARGE])
    assert driver.living["event"] == 0
    stopwatch.close()
    assert not any(driver.living.values())
