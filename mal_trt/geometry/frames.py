"""Many crops' geometry at once: `make_frame` for a whole batch of boxes, with the same result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mal_trt.geometry.boxes import TEST_MARGIN_RATE
from mal_trt.geometry.crops import Frame, resize_line

NEAR = 4  # crop pixels looked at around each side of a box
STEEPEST = 8  # source pixels to a crop's pixel, up to which the filter's taps are summed here
PRECISION = 2.0**-22  # of Pillow's weights, which are whole multiples of it


def make_frames(
    boxes: Sequence[Sequence[float]],
    sides: Sequence[tuple[int, int]],
    size: int,
    margin_rate: float = TEST_MARGIN_RATE,
    slack: float = 0.0,
) -> list[Frame]:
    """`make_frame` of each XYXY box in a picture with the (width, height) at its place in `sides`."""
    if not len(boxes):
        return []
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
    inner = spans.transpose(0, 2, 1).reshape(-1, 4)
    rows = zip(
        map(tuple, box.tolist()), map(tuple, np.hstack([start, stop]).tolist()), map(tuple, inner.tolist()), strict=True
    )
    return [
        Frame(given, extended, inside, int(width), int(height), size)  # type: ignore[arg-type]
        for (given, extended, inside), (width, height) in zip(rows, sides, strict=True)
    ]


def resized_spans(first: np.ndarray, last: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """For each line of `length` zeros with ones at first..last: where `resize_line` to `size` leaves ones, int64 [n,2]
    (0, 0 where nowhere). All int64 [n].

    A pixel is one where the weights of the ones are half of all. Near each end of the ones they are summed; what comes
    too near to a half to tell, or is out of the ordinary, `resize_line` decides.
    """
    first, last = np.clip(first, 0, length), np.clip(last, 0, length)
    spans = np.zeros((len(first), 2), np.int64)
    sure = (length <= STEEPEST * size) & (first < last)
    if sure.any():
        at = np.flatnonzero(sure)
        for side, ends in enumerate((first, last)):
            inside, near, told = _near(ends[at], first[at], last[at], length[at], size)
            ones = inside if side == 0 else ~inside
            # From zeros to ones, or back, once.
            told &= ~ones[:, 0] & ones[:, -1] & (ones[:, 1:] >= ones[:, :-1]).all(axis=1)
            spans[at, side] = near + ones.argmax(axis=1)
            sure[at] &= told
    for at in np.flatnonzero(~sure).tolist():
        line = np.zeros(int(length[at]), np.uint8)
        line[int(first[at]) : int(last[at])] = 1
        found = np.flatnonzero(resize_line(line, size))
        spans[at] = (int(found[0]), int(found[-1]) + 1) if found.size else (0, 0)
    return spans


def _near(
    ends: np.ndarray, first: np.ndarray, last: np.ndarray, length: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each of NEAR pixels of the resized line is one, bool [n,NEAR]; the first of them, and which lines it is
    certain of."""
    scale = length / size
    wide = np.maximum(scale, 1)[:, None, None]
    near = np.floor(ends / scale - 0.5).astype(np.int64) - NEAR // 2 + 1
    centre = ((near[:, None] + np.arange(NEAR) + 0.5) * scale[:, None])[:, :, None]
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
    share = (weight * ones).sum(axis=2) / np.where(total > 0, total, 1)  # 0 only far outside, which is not told
    told = (np.abs(share - 0.5) > taps.shape[2] * PRECISION).all(axis=1) & (near >= 0) & (near + NEAR <= size)
    return share >= 0.5, near, told
