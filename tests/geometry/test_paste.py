"""Pasted masks against the plain dense computation."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from coco_reference import coco_encode
from mal_trt.geometry.crops import Frame, make_frame
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.paste import TIGHT, TIGHT_IOU, mask_from_logits, rle_from_logits, tight_threshold
from mal_trt.geometry.rle import encode_rle


def bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel bilinear resize of a float64 [h,w] array, edges repeated, written the long way."""
    for axis, target in ((0, height), (1, width)):
        source = values.shape[axis]
        at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, source - 1)
        share = at - low
        share = share[:, None] if axis == 0 else share[None, :]
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values


def dense_probability(logits: np.ndarray, frame: Frame) -> np.ndarray:
    """The soft mask on the whole picture, float64 [H,W]."""
    soft = 1 / (1 + np.exp(-bilinear(logits.astype(np.float64), frame.size, frame.size)))
    x0, y0, x1, y1 = frame.inner
    boxed = np.zeros_like(soft)
    boxed[y0:y1, x0:x1] = soft[y0:y1, x0:x1]
    left, top, right, bottom = frame.extended
    soft = bilinear(boxed, bottom - top, right - left)
    canvas = np.zeros((frame.height, frame.width))
    here = np.s_[max(top, 0) : min(bottom, frame.height), max(left, 0) : min(right, frame.width)]
    canvas[here] = soft[here[0].start - top : here[0].stop - top, here[1].start - left : here[1].stop - left]
    return canvas


sides = st.integers(1, 120)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    width, height = draw(sides), draw(sides)
    x = sorted(draw(st.lists(st.floats(0, width), min_size=2, max_size=2, unique=True)))
    y = sorted(draw(st.lists(st.floats(0, height), min_size=2, max_size=2, unique=True)))
    return make_frame((x[0], y[0], x[1], y[1]), width, height, draw(st.sampled_from([32, 64, 96])))


@settings(max_examples=150, deadline=None)
@given(frame=frames(), shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 999))
def test_mask_is_the_dense_computation(frame: Frame, shape: tuple[int, int], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)
    probability = dense_probability(logits, frame)
    mask = mask_from_logits(logits, frame, 0.3).full(frame.height, frame.width)
    doubtful = np.abs(probability - 0.3) < 1e-4
    assert np.array_equal(mask[~doubtful], probability[~doubtful] > 0.3)
    assert rle_from_logits(logits, frame, 0.3) == coco_encode(mask)


def test_threshold_is_strict_and_zero_stays_in_the_box() -> None:
    frame = make_frame((10, 12, 30, 28), 64, 48, 64)
    flat = np.zeros((16, 16), np.float32)  # probability exactly 0.5
    assert mask_from_logits(flat, frame, 0.5).area == 0
    low = mask_from_logits(flat - 200, frame, 0.0).full(48, 64)
    assert not low[:10].any() and not low[:, :8].any() and not low[31:].any() and not low[:, 33:].any()
    inside = mask_from_logits(flat + 200, frame, 0.999).full(48, 64)
    assert inside[13:28, 11:30].all()


def test_box_without_a_pixel_in_the_picture() -> None:
    frame = make_frame((100, 100, 120, 120), 64, 48, 64)
    local = mask_from_logits(np.full((16, 16), 9, np.float32), frame, 0.1)
    assert local.area == 0
    assert encode_rle(local, 48, 64) == coco_encode(np.zeros((48, 64)))
    assert rle_from_logits(np.full((16, 16), 9, np.float32), frame, 0.1) == encode_rle(local, 48, 64)


def test_huge_box_needs_no_canvas() -> None:
    side = 20_000
    frame = make_frame((0, 0, side, side), side, side, 64)
    y, x = np.mgrid[:16, :16] - 7.5
    logits = (40 - x**2 - y**2).astype(np.float32)
    tracemalloc.start()
    rle = rle_from_logits(logits, frame, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # the canvas alone would be 400 MB
    disc = np.pi * 40 * (side * 1.3 / 16) ** 2
    assert abs(coco.area(rle) / disc - 1) < 0.05
    x0, y0, w, h = coco.toBbox(rle)
    assert abs(x0 + w / 2 - side / 2) < side * 0.02 and abs(y0 + h / 2 - side / 2) < side * 0.02


@pytest.mark.parametrize("seed", range(8))
def test_tight_threshold_by_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = 90, 70
    x0, y0 = rng.uniform(0, 40), rng.uniform(0, 30)
    box = (x0, y0, x0 + rng.uniform(15, 45), y0 + rng.uniform(15, 35))
    frame = make_frame(box, width, height, 64)
    y, x = np.mgrid[:16, :16] - 7.5
    logits = (rng.uniform(0, 3) - (x**2 + y**2) / rng.uniform(5, 20)).astype(np.float32)

    def bounds(local: LocalMask) -> np.ndarray:
        """The mask's bounding box, filled, on the whole picture."""
        canvas = local.full(height, width)
        return np.asarray(canvas.any(axis=1)[:, None] & canvas.any(axis=0))

    whole = bounds(mask_from_logits(np.full((16, 16), 50, np.float32), frame, 0.5))

    def fits(threshold: float) -> bool:
        own = bounds(mask_from_logits(logits, frame, threshold))
        return bool((own & whole).sum() >= TIGHT_IOU * (own | whole).sum())

    assert tight_threshold(logits, frame) == next((t for t in TIGHT if fits(t)), TIGHT[-1])
    assert tight_threshold(np.full((16, 16), -50, np.float32), frame) == TIGHT[-1]
    assert tight_threshold(np.full((16, 16), 50, np.float32), frame) == TIGHT[0]
