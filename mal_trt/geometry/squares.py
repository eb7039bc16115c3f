"""The highest and lowest value near each pixel, in time that grows with the pixels alone, not with how near is near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def highest_near(values: np.ndarray, reach: int) -> np.ndarray:
    """Of each pixel of [H,W]: the highest value at most `reach` rows and columns away; nothing lies beyond the edge."""
    return _near(values, reach, np.maximum)


def lowest_near(values: np.ndarray, reach: int) -> np.ndarray:
    """Likewise the lowest."""
    return _near(values, reach, np.minimum)


def _near(values: np.ndarray, reach: int, best: Callable[..., Any]) -> np.ndarray:
    for _ in range(2):
        values = _along(values, reach, best).T
    return values


def _along(values: np.ndarray, reach: int, best: Callable[..., Any]) -> np.ndarray:
    """The best of each 2 * reach + 1 values down the columns, C contiguous."""
    window = 2 * reach + 1
    found = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    held = 1  # found[i] is the best of as many values from i on
    while held < window:
        step = min(held, window - held)
        found = best(found[:-step], found[step:])
        held += step
    return np.ascontiguousarray(found)
