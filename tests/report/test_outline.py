"""Outlines and crops: lines stay within half a pixel of the mask, crops hold what they show."""

from __future__ import annotations

import io
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.report.crops import crop_of, window_of
from mal_trt.report.outline import HALVES, path_of
from mal_trt.report.shown import Shown

GROW = 16  # to paint lines with whole pixels


def lines_of(path: str) -> list[np.ndarray]:
    """The points of a path of M, l and z, as a browser reads them."""
    found = []
    for start, moves in re.findall(r"M(-?\d+ -?\d+)l([^z]*)z", path):
        steps = np.array([int(v) for v in re.findall(r"-?\d+", moves)]).reshape(-1, 2)
        found.append(np.cumsum(np.concatenate([[[int(v) for v in start.split()]], steps]), axis=0))
    return found


def painted(path: str, height: int, width: int) -> np.ndarray:
    """By the even-odd rule, in GROW pixels for each."""
    canvas = np.zeros((height * GROW, width * GROW), bool)
    for line in lines_of(path):
        one = Image.new("1", canvas.shape[::-1])
        ImageDraw.Draw(one).polygon([tuple(p) for p in (line * GROW // HALVES).tolist()], fill=1, outline=0)
        canvas ^= np.asarray(one)
    return canvas


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_path_is_inside_where_the_mask_is(mask: np.ndarray) -> None:
    """The middle of every pixel lies on the side of the line that its mask says."""
    path = path_of(mask)
    assert (path == "") == (not mask.any())
    inside = painted(path, *mask.shape)
    middles = inside[GROW // 2 :: GROW, GROW // 2 :: GROW]
    assert (middles == mask).all()


def test_a_slope_of_single_steps_is_one_line() -> None:
    mask = np.tri(40, dtype=bool)
    (line,) = lines_of(path_of(mask))
    assert len(line) < 8


def test_a_window_holds_the_box_and_the_masks_and_stays_in_the_picture() -> None:
    far = LocalMask(2, 3, np.ones((30, 4), bool))
    x0, y0, x1, y1 = window_of((40, 10, 60, 20), [far], 64, 48)
    assert (x0, y0) == (0, 0) and (x1, y1) == (64, 45)
    assert window_of((500, 500, 501, 501), [], 64, 48) == (63, 47, 64, 48)  # a box outside still has a window


def test_a_crop_is_never_enlarged_and_its_lines_fit_it() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)
    rle = encode_rle(LocalMask(100, 50, np.ones((40, 80), bool)), 200, 300)
    shown = Shown(1, "a", (100.0, 50.0, 180.0, 90.0), (rle, None))
    large, small = (crop_of(pixels, (300, 200), shown, side) for side in (1000, 56))
    for crop, zoom in ((large, 1.0), (small, 0.5)):
        assert crop.jpeg is not None
        size = Image.open(io.BytesIO(crop.jpeg)).size
        assert crop.lines["view"] == [HALVES * side for side in size]
        assert crop.lines["zoom"] == zoom
        assert crop.lines["masks"][1] == ""
        line = lines_of(crop.lines["masks"][0])[0]
        left, top, width, height = crop.lines["box"]
        assert abs(line.min(axis=0) - (left, top)).max() <= 1
        assert abs(line.max(axis=0) - (left + width, top + height)).max() <= 1
    assert crop_of(None, (300, 200), shown, 56) == (None, small.lines)
