"""Logits refined by the colours of their crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mal_trt.geometry.crops import make_frame
from mal_trt.geometry.refine import refine_colour

Write = Callable[..., Any]


def probability(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, Any]:
    """A red disc on green in a 64 px crop, a box around it, and where the disc is on a 16 x 16 grid."""
    y, x = np.mgrid[:64, :64]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 18**2
    noise = np.random.default_rng(0).integers(0, 30, (3, 64, 64))
    crop = np.where(inside, np.array([200, 30, 30])[:, None, None], np.array([30, 160, 40])[:, None, None]) + noise
    frame = make_frame((14, 14, 50, 50), 64, 64, 64, 64 / 36 - 1)
    return crop.astype(np.uint8), inside.reshape(16, 4, 16, 4).mean(axis=(1, 3)), frame


def test_colour_turns_a_soft_box_into_the_object(scene: Any) -> None:
    crop, share, frame = scene
    y, x = np.mgrid[:16, :16] - 7.5
    blob = 1.5 - np.maximum(np.abs(x), np.abs(y)) / 4  # a vague notion of the middle, with the box's corners
    inner = np.zeros((16, 16), bool)
    inner[frame.inner[1] // 4 : frame.inner[3] // 4, frame.inner[0] // 4 : frame.inner[2] // 4] = True
    refined = probability(refine_colour(blob.astype(np.float32), crop, frame))
    truth, sure = share > 0.5, (share < 0.1) | (share > 0.9)
    before, after = ((p > 0.5) != truth for p in (probability(blob) * inner, refined))
    assert (after & sure).sum() == 0 and (before & sure).sum() > 0
    assert refined[0].max() < 0.01  # nothing outside the box


def test_the_same_as_the_training_target(scene: Any) -> None:
    torch = pytest.importorskip("torch")
    colour = pytest.importorskip("mal_trt.training.colour")
    crop, _, frame = scene
    logits = np.random.default_rng(3).normal(0, 2, (16, 16)).astype(np.float32)
    small = torch.from_numpy(crop.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)) / 255)[None]
    box = np.zeros((64, 64), np.float32)
    x0, y0, x1, y1 = frame.inner
    box[y0:y1, x0:x1] = 1
    q = torch.from_numpy(probability(logits) * box.reshape(16, 4, 16, 4).mean(axis=(1, 3)))[None, None]
    expected = (colour.colour_likelihood(q.double(), small.double()) * q).sqrt()[0, 0].numpy()
    np.testing.assert_allclose(probability(refine_colour(logits, crop, frame)), expected.clip(1e-6), atol=1e-5)


def test_any_logits_and_crops_stay_finite(scene: Any) -> None:
    crop, _, frame = scene
    for value in (-1e4, 0.0, 1e4):
        for pixels in (crop, np.zeros_like(crop), crop.astype(np.float32)):
            assert np.isfinite(refine_colour(np.full((16, 16), value, np.float32), pixels, frame)).all()
