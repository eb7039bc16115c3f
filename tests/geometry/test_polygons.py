"""Masks as polygons and back: nothing lost, as each kind of reader fills them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.bridges import join_lines
from mal_trt.geometry.fill import even_odd, painted
from mal_trt.geometry.polygons import parts, single_line, three_points

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def held(lines: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pixels whose centres the lines hold, by counting crossings to the left one by one: the even-odd rule."""
    inside = np.zeros((height, width), bool)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for line in lines:
        for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crosses = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
            at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            inside ^= crosses[:, None] & (at[:, None] <= x)
    return inside


@given(masks)
@settings(max_examples=150, deadline=None)
def test_lines_hold_the_mask(mask: np.ndarray) -> None:
    found = parts(mask, "corners")
    lines = [line for part in found for line in part.lines]
    assert np.array_equal(held(lines, *mask.shape), mask)
    if lines:
        assert np.array_equal(held([join_lines(lines)], *mask.shape), mask), "bridges have no width"
    for line in lines:
        assert len(line) >= 4 and (line != np.roll(line, 1, axis=0)).any(axis=1).all()
    assert sum(part.pixels for part in found) == mask.sum()


@given(masks)
@settings(max_examples=150, deadline=None)
def test_painted_lines_through_centres_are_the_mask(mask: np.ndarray) -> None:
    whole = np.zeros(mask.shape, bool)
    for part in parts(mask, "centres"):
        own = painted([part.line], *mask.shape)
        assert own.sum() == part.pixels
        whole |= own
    assert np.array_equal(whole, mask)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_lines_are_as_many_as_parts_and_holes(mask: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    padded = np.pad(mask, 1).astype(np.uint8)
    for through, near, far in (("centres", 8, 4), ("corners", 4, 8)):
        found = parts(mask, through)
        assert len(found) == cv2.connectedComponents(padded, connectivity=near)[0] - 1
        holes = cv2.connectedComponents(1 - padded, connectivity=far)[0] - 2
        # A hole that touches itself at a corner is two to a line that may not.
        assert sum(len(part.holes) for part in found) >= holes
        if through != "corners":
            assert sum(len(part.holes) for part in found) == holes


@given(masks)
@settings(max_examples=150, deadline=None)
def test_parts_along_corners_are_what_gis_tools_take(mask: np.ndarray) -> None:
    shapely = pytest.importorskip("shapely")
    shape = shapely.MultiPolygon([shapely.Polygon(part.outer, part.holes) for part in parts(mask, "corners")])
    assert shape.is_valid and shape.area == mask.sum()


@given(masks)
@settings(max_examples=150, deadline=None)
def test_one_line_as_opencv_fills_it(mask: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    if not mask.any():
        return
    line, lost = single_line(parts(mask, "centres"))
    filled = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [line.astype(np.int32)], 1).astype(bool)
    kept = int(mask.sum()) - sum(part.pixels for part in lost)
    assert (filled & mask).sum() >= kept
    if len(parts(mask, "centres")) == 1:
        assert np.array_equal(filled, mask)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 8)), min_size=1, max_size=7))
@settings(max_examples=150, deadline=None)
def test_painted_is_what_opencv_fills(points: list[tuple[int, int]]) -> None:
    """But for lines that are neither straight nor diagonal: which pixels these touch is each library's own choice."""
    cv2 = pytest.importorskip("cv2")
    line = np.array(points, float)
    ours = painted([line + 0.6], 9, 12)
    theirs = cv2.fillPoly(np.zeros((9, 12), np.uint8), [line.astype(np.int32)], 1).astype(bool)
    steps = np.abs(np.roll(line, -1, axis=0) - line)
    odd = int((np.minimum(*steps.T) * (steps[:, 0] != steps[:, 1])).sum())
    assert (ours != theirs).sum() <= odd


@given(masks)
@settings(max_examples=100, deadline=None)
def test_even_odd_is_the_plain_count(mask: np.ndarray) -> None:
    lines = [line * 0.83 + 0.21 for part in parts(mask, "corners") for line in part.lines]
    assert np.array_equal(even_odd(lines, *mask.shape), held(lines, *mask.shape))


def test_parts_run_clockwise_and_holes_against() -> None:
    mask = np.ones((3, 4), bool)
    mask[1, 1] = False
    (part,) = parts(mask, "centres")
    assert (part.outer - 0.5).tolist() == [[3, 0], [3, 2], [0, 2], [0, 0]]
    assert [(hole - 0.5).tolist() for hole in part.holes] == [[[1, 2], [2, 1], [1, 0], [0, 1]]]
    (part,) = parts(mask, "corners")
    assert part.outer.tolist() == [[0, 0], [4, 0], [4, 3], [0, 3]] and part.pixels == 11


def test_holes_go_with_the_part_around_them() -> None:
    rings = np.zeros((9, 20), bool)
    for x in (0, 10):
        rings[0:9, x : x + 9] = True
        rings[1:8, x + 1 : x + 8] = False
        rings[3:6, x + 3 : x + 6] = True
        rings[4, x + 4] = False
    found = parts(rings, "centres")
    assert [len(part.holes) for part in found] == [1, 1, 1, 1] and [part.pixels for part in found] == [32, 32, 8, 8]
    for part in found:
        assert part.holes[0].min(axis=0)[0] >= part.outer.min(axis=0)[0]
        assert part.holes[0].max(axis=0)[0] <= part.outer.max(axis=0)[0]


def test_a_speck_far_away_is_not_worth_its_bridge() -> None:
    mask = np.zeros((10, 60), bool)
    mask[:10, :10] = True
    mask[4:8, 12:16] = True
    mask[5, 55] = True
    line, lost = single_line(parts(mask, "centres"))
    assert [part.pixels for part in lost] == [1] and line[:, 0].max() == 15.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (5, 5)])
def test_a_line_of_pixels_has_three_points_and_an_area(shape: tuple[int, int]) -> None:
    mask = np.eye(5, dtype=bool) if shape == (5, 5) else np.ones(shape, bool)
    for turned in (mask, mask[::-1]):
        line = three_points(single_line(parts(turned, "centres"))[0])
        (x0, y0), (x1, y1), (x2, y2) = line
        assert abs((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)) > 0.01
        assert np.array_equal(painted([line], *turned.shape), turned)


def test_a_bridge_goes_through_no_other_hole() -> None:
    mask = np.ones((8, 3), bool)
    mask[4, 1] = mask[6, 1] = False
    (part,) = parts(mask, "centres")
    assert np.array_equal(painted([part.line], 8, 3), mask)
    holes = np.ones((80, 80), bool)
    holes[1::3, 1::2] = False
    (part,) = parts(holes, "centres")
    assert len(part.holes) > 1000 and np.array_equal(painted([part.line], 80, 80), holes)


def test_nothing_has_no_part() -> None:
    assert parts(np.zeros((3, 4), bool), "centres") == parts(np.zeros((0, 0), bool), "middles") == []
