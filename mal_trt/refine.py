"""A mask sharpened by the colours of its own crop: what looks like the object, as a whole, and unlike the rest."""

from __future__ import annotations

import numpy as np

from mal_trt.crops import Frame

BINS = 20
LEAST = 1e-6  # probability that stands for none


def refine_colour(logits: np.ndarray, crop: np.ndarray, frame: Frame) -> np.ndarray:
    """Logits whose probability is sqrt(h * q), h the likelihood that a pixel's colour is the object's.

    logits: float32 [h,w]. crop: [3,S,S] RGB 0..255 with S a multiple of h and w. Returns float32 [h,w]. q is the
    given probability inside the box; h = f / (f + g) with f and g the colour densities of object and rest, weighted
    by q and 1 - q, on a grid of 20 bins an axis smoothed twice by a triangle: one soft step of GrabCut (Rother et al.
    2004) with histograms in place of mixtures.
    """
    height, width = logits.shape
    with np.errstate(over="ignore"):
        q = _box(frame, height, width) / (1 + np.exp(-logits.astype(np.float32)))
    level = np.rint(_shrunk(crop, height, width) * np.float32((BINS - 1) / 255)).astype(np.intp)
    cell = ((level[0] * BINS + level[1]) * BINS + level[2]).ravel()
    object_, rest = (_density(cell, weight.ravel()) for weight in (q, 1 - q))
    likelihood = object_[cell] / (object_[cell] + rest[cell] + 1e-12)
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
    """Smoothed share of the weight in each cell of the colour grid, [BINS^3]."""
    grid = np.bincount(cell, weight, BINS**3).reshape(BINS, BINS, BINS) / max(float(weight.sum()), LEAST)
    for _ in range(2):
        for axis in range(3):
            grid = np.moveaxis(grid, axis, 0)
            smooth = grid / 2
            smooth[1:] += grid[:-1] / 4
            smooth[:-1] += grid[1:] / 4
            grid = np.moveaxis(smooth, 0, axis)
    return grid.ravel()


def _box(frame: Frame, height: int, width: int) -> np.ndarray:
    """Share of each of height x width cells of the crop that the box covers, float32."""
    x0, y0, x1, y1 = frame.inner
    rows, columns = (
        np.clip(np.minimum(np.arange(1, n + 1) * step, last) - np.maximum(np.arange(n) * step, first), 0, None) / step
        for n, step, first, last in ((height, frame.size / height, y0, y1), (width, frame.size / width, x0, x1))
    )
    return np.outer(rows, columns).astype(np.float32)
