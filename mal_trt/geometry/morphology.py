"""Dilation and erosion by a square, in time that grows with the pixels alone, not with the square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def dilate(values: np.ndarray, reach: int) -> np.ndarray:
    """The highest value at most `reach` rows and columns from each pixel of [H,W]. Nothing lies beyond the edge."""
    return _extreme(values, reach, np.maximum)


def erode(values: np.ndarray, reach: int) -> np.ndarray:
    """The lowest value at most `reach` rows and columns from each pixel of [H,W]. Nothing lies beyond the edge."""
    return _extreme(values, reach, np.minimum)


def _extreme(values: np.ndarray, reach: int, better: Callable[..., Any]) -> np.ndarray:
    for _ in range(2):
        values = _along_columns(values, reach, better).T
    return values


def _along_columns(values: np.ndarray, reach: int, better: Callable[..., Any]) -> np.ndarray:
    """The extreme of each 2 * reach + 1 values down the columns, C contiguous."""
    window = 2 * reach + 1
    extremes = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    covered = 1  # extremes[i] is that of as many values from i on
    while covered < window:
        step = min(covered, window - covered)
        extremes = better(extremes[:-step], extremes[step:])
        covered += step
    return np.ascontiguousarray(extremes)
