"""Pasting: from a crop's logits to the object's mask in the picture. How masks are written down is `geometry.rle`.

The path is MAL's: logits, bilinear to the crop, sigmoid, zero outside the box, bilinear to the extended box,
the part inside the picture, threshold. Every step is separable and the box is a rectangle, so only the pixels
the box can reach are ever computed, in bands of columns: memory follows the crop, not the picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mal_trt.geometry.crops import Frame
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import RLE, column_edges, rle_from_edges

# Pixels of one band of columns: 256 KB of float32, so a band stays in the processor's cache.
BAND_PIXELS = 1 << 16
SIGMOID_BAND = 1 << 14  # likewise, float64 beside float32

# Thresholds that `tight_threshold` tries, and the IoU with its box at which it stops.
TIGHT = tuple(round(0.6 - 0.05 * step, 2) for step in range(12))
TIGHT_IOU = 0.95


def mask_from_logits(logits: np.ndarray, frame: Frame, threshold: float) -> LocalMask:
    """The mask of one box: probability strictly above `threshold`, inside the box and the picture.

    logits: float32 [h,w] of the whole crop that `frame` describes, of any resolution.
    """
    window = _Window(logits, frame)
    bands = list(window.bands(threshold))
    mask = np.concatenate(bands).T if bands else np.zeros((0, 0), bool)
    return LocalMask(window.x0, window.y0, mask)


def rle_from_logits(logits: np.ndarray, frame: Frame, threshold: float) -> RLE:
    """encode_rle(mask_from_logits(...)) without holding the mask: for boxes of any size."""
    return rle_from_edges(edges_from_logits(logits, frame, threshold), frame.height, frame.width)


def edges_from_logits(logits: np.ndarray, frame: Frame, threshold: float) -> np.ndarray:
    """Where the mask of `mask_from_logits` switches on and off, as `rle_from_edges` takes it, int64 [2n]."""
    window = _Window(logits, frame)
    edges = [np.zeros(0, np.int64)]
    x0 = window.x0
    for band in window.bands(threshold):
        edges.append(column_edges(band, x0, window.y0, frame.height))
        x0 += len(band)
    return np.concatenate(edges)


def tight_threshold(logits: np.ndarray, frame: Frame) -> float:
    """The highest threshold whose mask still fills its box: from .6 down to .05, the first at which the mask's own
    bounding box has an IoU of .95 with that of a mask that is all of the box; the lowest where none has.
    """
    window = _Window(logits, frame)
    columns, rows = [], np.zeros(0, np.float32)
    for band in window.soft_bands():
        columns.append(band.max(axis=1))
        rows = np.maximum(rows, band.max(axis=0)) if rows.size else band.max(axis=0)
    if not columns:
        return TIGHT[-1]
    across = np.concatenate(columns)
    whole = window.whole()
    for threshold in TIGHT:
        shared = areas = 1.0
        for values, (first, last) in zip((across, rows), whole, strict=True):
            (own,) = np.nonzero(values > np.float32(threshold))
            low, high = (int(own[0]), int(own[-1]) + 1) if own.size else (0, 0)
            shared *= max(0, min(high, last) - max(low, first))
            areas *= high - low
        full = (whole[0][1] - whole[0][0]) * (whole[1][1] - whole[1][0])
        if shared >= TIGHT_IOU * (areas + full - shared):
            return threshold
    return TIGHT[-1]


class _Window:
    """The picture pixels one box can reach, and how to compute them from its logits.

    x0, y0: top left corner, picture pixels.
    """

    def __init__(self, logits: np.ndarray, frame: Frame) -> None:
        left, top, right, bottom = frame.extended
        ix0, iy0, ix1, iy1 = frame.inner
        rows = _Axis(top, bottom, iy0, iy1, frame.height, frame.size)
        self._columns = columns = _Axis(left, right, ix0, ix1, frame.width, frame.size)
        self.x0, self.y0 = columns.start, rows.start
        crop = _resample(logits.astype(np.float32, copy=False), *_taps(logits.shape[0], frame.size, rows.used))
        crop = _resample(crop.T, *_taps(logits.shape[1], frame.size, columns.used))  # (columns used, rows used)
        self._rows = rows
        self._soft = _resample(_sigmoid(crop).T, *rows.taps)  # (rows out, columns used)

    def whole(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last column, first and last row (exclusive) of a mask that is all of the box, in the window."""
        spans = []
        for _, _, low, high in (self._columns.taps, self._rows.taps):
            (inside,) = np.nonzero(low + high > np.float32(0.5))
            spans.append((int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0))
        return spans[0], spans[1]

    def bands(self, threshold: float) -> Iterator[np.ndarray]:
        """The mask, transposed: bool [some columns, all rows], left to right."""
        for band in self.soft_bands():
            yield band > np.float32(threshold)

    def soft_bands(self) -> Iterator[np.ndarray]:
        """The probabilities, float32, in the same bands."""
        low, high, weight_low, weight_high = self._columns.taps
        soft = np.ascontiguousarray(self._soft.T)
        step = max(1, BAND_PIXELS // max(1, soft.shape[1]))
        for start in range(0, len(low) if soft.shape[1] else 0, step):
            part = slice(start, start + step)
            yield _resample(soft, low[part], high[part], weight_low[part], weight_high[part])


Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class _Axis:
    """One axis of the way from the crop back to the picture.

    start: first picture pixel reached. used: crop indices that matter, int [k]. taps: per picture pixel, two
    positions in `used` and their weights; a tap outside the box weighs nothing.
    """

    def __init__(self, first: int, last: int, inner_first: int, inner_last: int, limit: int, size: int) -> None:
        pixels = np.arange(max(first, 0), min(last, limit))
        low, high, weight_low, weight_high = _taps(size, last - first, pixels - first)
        reached = (high >= inner_first) & (low < inner_last)
        pixels, low, high = pixels[reached], low[reached], high[reached]
        weight_low = weight_low[reached] * ((low >= inner_first) & (low < inner_last))
        weight_high = weight_high[reached] * ((high >= inner_first) & (high < inner_last))
        low, high = (np.clip(index, inner_first, inner_last - 1) for index in (low, high))
        seen = np.zeros(size, bool)
        seen[low] = seen[high] = True
        place = np.cumsum(seen) - 1
        self.start = int(pixels[0]) if pixels.size else 0
        self.used = np.flatnonzero(seen)
        self.taps: Taps = place[low], place[high], weight_low, weight_high


def _taps(source: int, target: int, at: np.ndarray) -> Taps:
    """Bilinear from `source` to `target` samples, at target indices `at`: half-pixel, edges repeated."""
    half = np.float32(0.5)
    position = np.maximum(np.float32(source / target) * (at.astype(np.float32) + half) - half, 0)
    low = np.minimum(position.astype(np.intp), source - 1)
    high = np.minimum(low + 1, source - 1)
    weight_high = position - low.astype(np.float32)
    return low, high, np.float32(1) - weight_high, weight_high


def _resample(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, w_low: np.ndarray, w_high: np.ndarray
) -> np.ndarray:
    """values[low] * w_low + values[high] * w_high along the first axis."""
    result: np.ndarray = values[low]
    result *= w_low[:, None]
    other = values[high]
    other *= w_high[:, None]
    result += other
    return result


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-values)), float32; it takes the memory of `values`.

    The exponential is rounded from float64: float32's own differs between processors, and from the GPU's.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, SIGMOID_BAND):
            band = flat[start : start + SIGMOID_BAND]
            wide = band.astype(np.float64)
            band[...] = np.exp(np.negative(wide, out=wide), out=wide)
    flat += 1
    np.divide(1, flat, out=flat)
    return flat.reshape(values.shape)
