"""Run lengths against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from coco_reference import coco_encode
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle, resized_rle


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    density=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_rle_is_pycocotools(
    size: tuple[int, int], corner: tuple[float, float], extent: tuple[float, float], density: float, seed: int
) -> None:
    y0, x0 = (round(at * length) for at, length in zip(corner, size, strict=True))
    rows, columns = (round(part * (length - at)) for part, length, at in zip(extent, size, (y0, x0), strict=True))
    local = LocalMask(x0, y0, np.random.default_rng(seed).random((rows, columns)) < density)
    canvas = local.full(*size)
    rle = encode_rle(local, *size)
    assert rle == coco_encode(canvas)
    back = decode_rle(rle)
    assert np.array_equal(back.full(*size), canvas)
    assert back.area == local.area == coco.area(rle)
    listed = {"size": rle["size"], "counts": run_lengths(canvas)}
    assert np.array_equal(decode_rle(listed).full(*size), canvas)


def run_lengths(canvas: np.ndarray) -> list[int]:
    runs, value = [0], False
    for pixel in canvas.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_decoded_window_is_tight() -> None:
    canvas = np.zeros((50, 60), bool)
    canvas[10:13, 20:25] = True
    local = decode_rle(coco_encode(canvas))
    assert (local.x0, local.y0, local.mask.shape) == (20, 10, (3, 5))


def test_mask_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves its 10x10 picture"):
        encode_rle(LocalMask(8, 0, np.ones((2, 3), bool)), 10, 10)


@pytest.mark.parametrize("size", [(60, 80), (15, 20), (45, 61)])
def test_resized_as_its_picture_would_be(size: tuple[int, int]) -> None:
    canvas = np.zeros((30, 40), bool)
    canvas[4:21, 7:33] = True
    canvas[10:14, 12:20] = False
    resized = decode_rle(resized_rle(coco_encode(canvas), *size)).full(*size)
    wanted = Image.fromarray(canvas.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(resized, np.asarray(wanted, bool))
