"""Boxes of all clients on their way to the network: a bounded queue for each size class, from which batches are taken.

Where batches become masks is `inference`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mal_trt.base.errors import MalTrtError, RunError
from mal_trt.geometry.boxes import SizeClass, size_class
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.rle import RLE

Box = tuple[float, float, float, float]


class Overloaded(RunError):
    """More was asked for than is taken at once. retry_after: whole seconds after which to try again."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Result(NamedTuple):
    """The mask of one box.

    frame: its crop's geometry, logits: float32 [h,w] of that crop; both None for a box outside the picture. rle: the
    mask at the model's threshold, COCO's compressed RLE of the whole picture. score: see `geometry.quality.soft_iou`.
    """

    frame: Frame | None
    logits: np.ndarray | None
    rle: RLE
    score: float


@dataclass(eq=False)
class Job:
    """The boxes of one request. done: called once, by the thread that finishes it, with an error or None.

    picture: uint8 [H,W,3] RGB. boxes: XYXY inside the picture, None where a box has no part in it.
    """

    picture: np.ndarray
    boxes: Sequence[Box | None]
    done: Callable[[MalTrtError | None], None]
    results: list[Result | None] = field(default_factory=list)
    missing: int = 0
    ended: bool = False
    arrived: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.boxes)
        self.missing = sum(box is not None for box in self.boxes)
        self._lock = threading.Lock()

    @property
    def pixels(self) -> int:
        return int(self.picture.shape[0]) * int(self.picture.shape[1])

    def put(self, place: int, result: Result) -> None:
        """Keep the result of one box."""
        with self._lock:
            self.results[place] = result
            self.missing -= 1
            last = not self.missing and not self.ended
            self.ended = self.ended or last
        if last:
            self.done(None)

    def fail(self, error: MalTrtError) -> None:
        """End it; what of it still waits is left out."""
        with self._lock:
            first, self.ended = not self.ended, True
        if first:
            self.done(error)


class Waiting(NamedTuple):
    """One box that waits."""

    job: Job
    place: int


@dataclass(eq=False)
class _Share:
    """A job's boxes of one size class."""

    job: Job
    places: deque[int]


class BoxQueues:
    """Bounded queues of boxes; any number of threads may put and take.

    Each batch takes one box of each waiting request in turn, so a large request does not hold up small ones.
    most: boxes and pixels that may wait. wait: seconds that a batch waits to be full while boxes are expected.
    """

    def __init__(self, most_boxes: int, most_pixels: int, wait: float) -> None:
        self._most_boxes, self._most_pixels, self._wait = most_boxes, most_pixels, wait
        self._changed = threading.Condition()
        self._shares: dict[SizeClass, deque[_Share]] = {size: deque() for size in SizeClass}
        self._counts = dict.fromkeys(SizeClass, 0)
        self._pixels: dict[Job, int] = {}
        self._expected = 0
        self._closed = False
        self._rate = 0.0  # boxes a second, lately
        self._taken_at = 0.0

    def __len__(self) -> int:
        return sum(self._counts.values())

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While boxes of a request are being made ready, so that a batch may wait for them."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    def put(self, job: Job) -> None:
        """Let the boxes of a job wait, all of them; Overloaded if there is no room."""
        with self._changed:
            if self._closed:
                raise Overloaded("the server is being stopped", 5)
            waiting = len(self)
            held = sum(self._pixels.values())
            if waiting + job.missing > self._most_boxes or (held and held + job.pixels > self._most_pixels):
                seconds = round(waiting / self._rate) if self._rate else 1
                raise Overloaded(f"{waiting} boxes are waiting, there is no room for more", min(max(1, seconds), 60))
            by_size: dict[SizeClass, deque[int]] = {}
            for place, box in enumerate(job.boxes):
                if box is not None:
                    by_size.setdefault(size_class((box[2] - box[0]) * (box[3] - box[1])), deque()).append(place)
            for size, places in by_size.items():
                self._counts[size] += len(places)
                self._shares[size].append(_Share(job, places))
            self._pixels[job] = job.pixels
            self._changed.notify_all()

    def take(self, most: int) -> tuple[SizeClass, list[Waiting]] | None:
        """A batch of boxes of one size class, as soon as there is one; None when all is done and closed."""
        with self._changed:
            while True:
                oldest: tuple[float, SizeClass] | None = None
                soonest: float | None = None
                now = time.monotonic()
                for size, shares in self._shares.items():
                    if not shares:
                        continue
                    arrived = min(share.job.arrived for share in shares)
                    due = arrived + self._wait
                    if self._counts[size] < most and self._expected and now < due and not self._closed:
                        soonest = due if soonest is None else min(soonest, due)
                    elif oldest is None or arrived < oldest[0]:
                        oldest = arrived, size
                if oldest is not None:
                    batch = self._batch(oldest[1], most)
                    if batch:
                        return oldest[1], batch
                    continue
                if self._closed and soonest is None:
                    return None
                self._changed.wait(None if soonest is None else max(0.0, soonest - now))

    def finished(self, batch: Sequence[Waiting]) -> None:
        """A batch has left the network: jobs that have ended let go of their pictures."""
        with self._changed:
            for job in {id(one.job): one.job for one in batch}.values():
                if job.ended:
                    self._pixels.pop(job, None)
            now = time.monotonic()
            if self._taken_at and now > self._taken_at:
                self._rate += 0.2 * (len(batch) / (now - self._taken_at) - self._rate)
            self._taken_at = now

    def drop(self, job: Job) -> None:
        """Forget a job that has ended before its boxes were taken."""
        with self._changed:
            for size, shares in self._shares.items():
                for share in [share for share in shares if share.job is job]:
                    shares.remove(share)
                    self._counts[size] -= len(share.places)
            self._pixels.pop(job, None)

    def close(self) -> None:
        """Take nothing more; what waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batch(self, size: SizeClass, most: int) -> list[Waiting]:
        shares = self._shares[size]
        batch: list[Waiting] = []
        while shares and len(batch) < most:
            share = shares.popleft()
            if share.job.ended:
                self._counts[size] -= len(share.places)
                continue
            batch.append(Waiting(share.job, share.places.popleft()))
            self._counts[size] -= 1
            if share.places:
                shares.append(share)
        return batch
