"""A mask sharpened by the colours of its own crop: what looks like the object, as a whole, and unlike the rest."""

from __future__ import annotations

import numpy as np

from mal_trt.geometry.crops import Frame

BINS = 20
LEAST = 1e-6  # probability that stands for none

# Weights are whole multiples of 1 / WHOLE, and the smoothing keeps them whole: sums below 2^53 are exact in float64,
# so no order of summation, here or on a GPU, changes a bit.
WHOLE = 1 << 24


def refine_colour(logits: np.ndarray, crop: np.ndarray, frame: Frame) -> np.ndarray:
    """Logits whose probability is sqrt(h * q), h the likelihood that a pixel's colour is the object's.

    logits: float32 [h,w]. crop: [3,S,S] RGB 0..255 with S a multiple of h and w. Returns float32 [h,w]. q is the
    given probability inside the box; h = f / (f + g) with f and g the colour densities of object and rest, weighted
    by q and 1 - q, on a grid of 20 bins an axis smoothed twice by a triangle: one soft step of GrabCut (Rother et al.
    2004) with histograms in place of mixtures.
    """
    height, width = logits.shape
    with np.errstate(over="ignore"):
        q = _box(frame, height, width) / (1 + np.exp(-logits.astype(np.float64)).astype(np.float32))
    level = np.rint(_shrunk(crop, height, width) * np.float32((BINS - 1) / 255)).astype(np.intp)
    cell = ((level[0] * BINS + level[1]) * BINS + level[2]).ravel()
    weight = np.rint(q.ravel() * np.float32(WHOLE))
    object_, rest = (_density(cell, part) for part in (weight, np.float32(WHOLE) - weight))
    likelihood = object_ / (object_ + rest + 1e-12)
    refined = np.clip(np.sqrt(likelihood.reshape(q.shape) * q), LEAST, 1 - LEAST)
    result: np.ndarray = np.log(refined / (1 - refined)).astype(np.float32)
    return result


def _shrunk(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Mean of the pixels in each of height x width cells, float32 [3,h,w]."""
    down, across = crop.shape[1] // height, crop.shape[2] // width
    # Sums of slices: many times faster than a mean over axes.
    rows = crop[:, 0::down].astype(np.float32)
    for start in range(1, down):
        rows += crop[:, start::down]
    cells: np.ndarray = rows[:, :, 0::across].copy()
    for start in range(1, across):
        cells += rows[:, :, start::across]
    cells /= np.float32(down * across)
    return cells


def _density(cell: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """At each pixel, the smoothed share of the weight in its cell of the colour grid, float64 [n].

    weight: whole numbers, float32 [n].
    """
    sums = np.bincount(cell, weight, BINS**3)
    # A triangle twice along each axis in turn, times 16 an axis.
    red = (SMOOTH @ sums.reshape(BINS, -1)).reshape(BINS, BINS, BINS)
    smooth = np.matmul(SMOOTH, red) @ SMOOTH
    share: np.ndarray = smooth.ravel()[cell] / (max(float(sums.sum()), LEAST * WHOLE) * 16**3)
    return share


def _triangle() -> np.ndarray:
    """Twice (1, 2, 1) along one axis of the grid, nothing beyond its ends; symmetric, [BINS,BINS]."""
    once = 2 * np.eye(BINS) + np.eye(BINS, k=1) + np.eye(BINS, k=-1)
    return once @ once


SMOOTH = _triangle()


def _box(frame: Frame, height: int, width: int) -> np.ndarray:
    """Share of each of height x width cells of the crop that the box covers, float32."""
    x0, y0, x1, y1 = frame.inner
    rows, columns = (
        np.clip(np.minimum(np.arange(1, n + 1) * step, last) - np.maximum(np.arange(n) * step, first), 0, None) / step
        for n, step, first, last in ((height, frame.size / height, y0, y1), (width, frame.size / width, x0, x1))
    )
    return np.outer(rows, columns).astype(np.float32)
