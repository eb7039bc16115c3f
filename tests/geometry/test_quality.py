"""How sure the network is of a mask: by its definition, computed plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.crops import make_frame
from mal_trt.geometry.quality import soft_iou


def test_soft_iou_is_one_for_a_sure_mask_and_low_for_an_unsure_one() -> None:
    frame = make_frame((20, 20, 60, 60), 100, 100, 64)
    logits = np.full((32, 32), -30, np.float32)
    logits[12:20, 12:20] = 30
    assert soft_iou(logits, frame, 0.5) == 1
    assert soft_iou(logits * np.float32(0.02), frame, 0.5) < 0.5
    assert soft_iou(np.full((32, 32), -30, np.float32), frame, 0.5) == 0
    assert soft_iou(np.full((32, 32), -500, np.float32), frame, 0.5) == 0


@given(arrays(np.float32, (16, 16), elements=st.floats(-8, 8, width=32)), st.sampled_from([0.1, 0.5]))
@settings(max_examples=100, deadline=None)
def test_soft_iou_by_its_definition(logits: np.ndarray, threshold: float) -> None:
    """Counted in the box alone: what the network says beside it is no part of the mask."""
    frame = make_frame((20, 20, 60, 60), 100, 100, 64)
    x0, y0, x1, y1 = (side * 16 / 64 for side in frame.inner)
    p = 1 / (1 + np.exp(-logits.astype(float)))[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    m = (p > threshold).astype(float)
    expected = (p * m).sum() / np.maximum(p, m).sum()
    assert soft_iou(logits, frame, threshold) == pytest.approx(expected, abs=6e-5)
