"""Polygons around masks: the pixels they hold are the mask's, exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.polygons import one_line, outlines

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def held(lines: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pixels whose centres the lines (half pixels) hold, by counting crossings to the left: the even-odd rule."""
    inside = np.zeros((height, width), bool)
    x, y = 2 * np.arange(width) + 1, 2 * np.arange(height) + 1
    for line in lines:
        for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crosses = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            inside ^= crosses[:, None] & (at[:, None] < x)
    return inside


@given(masks)
@settings(max_examples=300, deadline=None)
def test_lines_hold_the_mask(mask: np.ndarray) -> None:
    lines = outlines(mask)
    assert np.array_equal(held(lines, *mask.shape), mask)
    if lines:
        assert np.array_equal(held([one_line(lines)], *mask.shape), mask), "bridges have no width"
    for line in lines:
        assert len(line) >= 4 and (line != np.roll(line, 1, axis=0)).any(axis=1).all()


@given(masks)
@settings(max_examples=100, deadline=None)
def test_lines_are_as_many_as_parts_and_holes(mask: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    padded = np.pad(mask, 1).astype(np.uint8)
    parts = cv2.connectedComponents(padded, connectivity=8)[0] - 1
    holes = cv2.connectedComponents(1 - padded, connectivity=4)[0] - 2
    assert len(outlines(mask)) == parts + holes


def test_parts_run_clockwise_and_holes_against() -> None:
    mask = np.ones((3, 4), bool)
    mask[1, 1] = False
    part, hole = outlines(mask)
    assert part.tolist() == [[1, 0], [7, 0], [8, 1], [8, 5], [7, 6], [1, 6], [0, 5], [0, 1]]
    assert hole.tolist() == [[3, 4], [4, 3], [3, 2], [2, 3]]


def test_nothing_has_no_line() -> None:
    assert outlines(np.zeros((3, 4), bool)) == outlines(np.zeros((0, 0), bool)) == []
