"""Many crops' geometry at once: `make_frame` for a whole batch of boxes, with the same result, kept as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mal_trt.geometry.boxes import TEST_MARGIN_RATE
from mal_trt.geometry.crops import Frame, resized_span

NEAR = (2, 4)  # crop pixels looked at around each side of a box: first few, then more where that did not decide
STEEPEST = 8  # source pixels per crop pixel, up to which the filter's taps are summed here
PRECISION = 2.0**-22  # of Pillow's weights, which are whole multiples of it


@dataclass(frozen=True, eq=False)
class Frames:
    """`Frame`s of n boxes.

    box: float64 [n,4]. extended, inner: int64 [n,4], XYXY as in `Frame`. sides: width and height of each box's
    picture, int64 [n,2]. size: side of each crop, int64 [n].
    """

    box: np.ndarray
    extended: np.ndarray
    inner: np.ndarray
    sides: np.ndarray
    size: np.ndarray

    @staticmethod
    def of(frames: Sequence[Frame] | Frames) -> Frames:
        """The same frames as arrays; at least one."""
        if isinstance(frames, Frames):
            return frames
        return Frames(
            np.array([frame.box for frame in frames], np.float64),
            np.array([frame.extended for frame in frames], np.int64),
            np.array([frame.inner for frame in frames], np.int64),
            np.array([(frame.width, frame.height) for frame in frames], np.int64),
            np.array([frame.size for frame in frames], np.int64),
        )

    @staticmethod
    def room(boxes: int, size: int) -> Frames:
        """Frames of `boxes` boxes with crops of side `size`, all zeros until they are `put`."""
        extended, inner, sides = (np.zeros((boxes, wide), np.int64) for wide in (4, 4, 2))
        return Frames(np.zeros((boxes, 4)), extended, inner, sides, np.full(boxes, size, np.int64))

    def part(self, at: np.ndarray | slice) -> Frames:
        """The frames at some places, int or bool [m]."""
        return Frames(self.box[at], self.extended[at], self.inner[at], self.sides[at], self.size[at])

    def put(self, at: np.ndarray, frames: Frames) -> None:
        """Store other frames at the places `at`, int [m]."""
        self.box[at], self.extended[at], self.inner[at] = frames.box, frames.extended, frames.inner
        self.sides[at], self.size[at] = frames.sides, frames.size

    @property
    def side(self) -> int:
        """Side of the crops, where all have the same and there is at least one."""
        return int(self.size[0])

    def __len__(self) -> int:
        return len(self.box)

    def __getitem__(self, at: int) -> Frame:
        """One of the frames."""
        x0, y0, x1, y1 = self.box[at].tolist()
        left, top, right, bottom = self.extended[at].tolist()
        ix0, iy0, ix1, iy1 = self.inner[at].tolist()
        width, height = self.sides[at].tolist()
        extended, inner = (left, top, right, bottom), (ix0, iy0, ix1, iy1)
        return Frame((x0, y0, x1, y1), extended, inner, width, height, int(self.size[at]))

    def __iter__(self) -> Iterator[Frame]:
        return (self[at] for at in range(len(self)))


def make_frames(
    boxes: np.ndarray | Sequence[Sequence[float]],
    sides: np.ndarray | Sequence[tuple[int, int]],
    size: int,
    margin_rate: float = TEST_MARGIN_RATE,
    slack: float = 0.0,
) -> Frames:
    """`make_frame` of each XYXY box in a picture with the (width, height) at its place in `sides`."""
    if not len(boxes):
        return Frames.room(0, size)
    box = np.array(boxes, np.float64)
    limits = np.array(sides, np.int64)
    low, high = box[:, :2], box[:, 2:]
    centre = (low + high) / 2
    start = np.floor(centre - (centre - low) * (1 + margin_rate / 2)).astype(np.int64)
    stop = np.ceil(centre + (high - centre) * (1 + margin_rate / 2) + 1).astype(np.int64)
    if slack:
        reach = (high - low) * slack
        low, high = np.maximum(0.0, low - reach), np.minimum(limits.astype(np.float64), high + reach)
    first = np.maximum(low.astype(np.int64), 0) - start
    last = np.minimum(high.astype(np.int64) + 1, limits) - start
    spans = resized_spans(first.ravel(), last.ravel(), (stop - start).ravel(), size).reshape(-1, 2, 2)
    inner = np.ascontiguousarray(spans.transpose(0, 2, 1)).reshape(-1, 4)
    return Frames(box, np.hstack([start, stop]), inner, limits, np.full(len(box), size, np.int64))


def resized_spans(first: np.ndarray, last: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """`resized_span` of many lines, int64 [n,2]. first, last, length: int64 [n].

    A pixel is one where the ones have half of the filter's weight. Near each end of the ones the weights are summed;
    `resized_span` itself decides what comes too close to a half, or is out of the ordinary.
    """
    first, last = np.clip(first, 0, length), np.clip(last, 0, length)
    spans = np.zeros((len(first), 2), np.int64)
    summed = (length <= STEEPEST * size) & (first < last)
    sure = np.zeros(len(first), bool)
    for near in NEAR:
        left = np.flatnonzero(summed & ~sure)
        # Lines that are shrunk alike have equally many taps.
        shrunk = -(-length[left] // size)
        for times in np.unique(shrunk).tolist():
            at = left[shrunk == times]
            found, certain = _ends(first[at], last[at], length[at], size, near)
            spans[at[certain]] = found[certain]
            sure[at[certain]] = True
    for one in np.flatnonzero(~sure).tolist():
        spans[one] = resized_span(int(first[one]), int(last[one]), int(length[one]), size)
    return spans


def _ends(
    first: np.ndarray, last: np.ndarray, length: np.ndarray, size: int, near: int
) -> tuple[np.ndarray, np.ndarray]:
    """`resized_spans` by `near` pixels at each end, int64 [n,2], and whether that is certain, bool [n]."""
    spans = np.empty((len(first), 2), np.int64)
    sure = np.ones(len(first), bool)
    for side, ends in enumerate((first, last)):
        inside, start, certain = _near(ends, first, last, length, size, near)
        ones = inside if side == 0 else ~inside
        # From zeros to ones, or back, once.
        sure &= certain & ~ones[:, 0] & ones[:, -1] & (ones[:, 1:] >= ones[:, :-1]).all(axis=1)
        spans[:, side] = start + ones.argmax(axis=1)
    return spans, sure


def _near(
    ends: np.ndarray, first: np.ndarray, last: np.ndarray, length: np.ndarray, size: int, near: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Around the `ends` of resized lines: whether each of `near` pixels is one, bool [n,near]; the first of them, int64
    [n]; and for which lines this is certain, bool [n]."""
    scale = length / size
    wide = np.maximum(scale, 1)[:, None, None]
    start = np.ceil(ends / scale - 0.5).astype(np.int64) - near // 2
    centre = ((start[:, None] + np.arange(near) + 0.5) * scale[:, None])[:, :, None]
    lowest = np.maximum((centre - 2 * wide + 0.5).astype(np.int64), 0)
    highest = np.minimum((centre + 2 * wide + 0.5).astype(np.int64), length[:, None, None])
    taps = lowest + np.arange(4 * int(np.ceil(wide.max())) + 2)
    distance = np.abs((taps - centre + 0.5) / wide)
    weight = np.where(
        distance < 1, (1.5 * distance - 2.5) * distance**2 + 1, ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    )
    weight[(distance >= 2) | (taps >= highest)] = 0
    ones = (taps >= first[:, None, None]) & (taps < last[:, None, None])
    total = weight.sum(axis=2)
    share = (weight * ones).sum(axis=2) / np.where(total > 0, total, 1)  # 0 only far outside, which is not certain
    certain = (np.abs(share - 0.5) > taps.shape[2] * PRECISION).all(axis=1) & (start >= 0) & (start + near <= size)
    return share >= 0.5, start, certain
