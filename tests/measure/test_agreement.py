"""Agreement of two models: figures that can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mal_trt.geometry.crops import Frame, make_frame
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.geometry.rle import encode_rle
from mal_trt.measure.agreement import LISTED, Agreement, Answer, Truth, answers


def frame(side: int = 20, at: int = 10) -> Frame:
    return make_frame((at, at, at + side, at + side), 300, 300, 64)


def plane(value: float) -> np.ndarray:
    return np.full((16, 16), value, np.float32)


def pair(
    reference: np.ndarray, other: np.ndarray, where: Frame, box: int = 1, truth: Truth | None = None
) -> tuple[Answer, Answer]:
    """Both models' answers to one box, at a threshold of one half."""
    first, second = (answers(x[None], [where], [box], (0.5,) * 3, [truth])[0] for x in (reference, other))
    return first, second


def test_logit_errors_by_hand() -> None:
    agreement = Agreement()
    wide = plane(1)
    wide[0, 0] = -3
    off = wide.copy()
    off[5, 5] += 2
    agreement.add(*pair(wide, off, frame()))
    agreement.add(*pair(plane(2), plane(1), frame(150)))
    found = agreement.summary()
    error = found["logit_error"]
    assert (error["max"], error["reference_range"], error["relative_max"]) == (2, 5, 0.4)
    assert error["mean"] == pytest.approx((2 + 256) / 512)
    assert error["relative_mean"] == pytest.approx(error["mean"] / 5)
    small, medium, large = (found["by_size"][size] for size in ("small", "medium", "large"))
    assert (small["boxes"], medium["boxes"], large["boxes"], found["boxes"]) == (1, 0, 1, 2)
    assert medium["mask_iou"] is medium["logit_error"] is None
    assert (small["logit_error"]["max"], large["logit_error"]["max"]) == (2, 1)
    assert found["mask_iou"]["worst"] == pytest.approx(1, abs=1e-3) and found["mask_iou"]["below_0.9"] == 0
    assert found["miou"] is None


def test_masks_by_hand() -> None:
    agreement = Agreement()
    left = plane(5)
    left[:, 8:] = -5
    agreement.add(*pair(plane(5), left, frame(), box=7))
    agreement.add(*pair(plane(-5), plane(-6), frame(), box=8))  # two empty masks agree
    agreement.add(*pair(plane(5), plane(5), frame(), box=9))
    found = agreement.summary()["mask_iou"]
    assert found["worst"] == pytest.approx(0.5, abs=0.05) and found["worst_box"] == 7
    assert found["mean"] == pytest.approx((found["worst"] + 2) / 3)
    assert found["below_0.9"] == pytest.approx(1 / 3)
    agreement.add(*pair(plane(-5), plane(5), frame(), box=10))
    assert agreement.summary()["mask_iou"]["worst"] == 0


def test_drawn_masks_give_both_miou_and_their_difference() -> None:
    where = frame()
    whole = encode_rle(mask_from_logits(plane(5), where, 0.5), 300, 300)
    left = plane(5)
    left[:, 8:] = -5
    agreement = Agreement()
    agreement.add(*pair(plane(5), left, where, truth=Truth(whole, 3, 400.0)))
    agreement.add(*pair(plane(5), plane(5), where, truth=None))
    miou = agreement.summary()["miou"]
    assert miou["objects"] == 1
    assert miou["reference"]["all"] == miou["reference"]["small"] == pytest.approx(1, abs=1e-5)
    assert miou["difference"]["all"] == pytest.approx(-0.5, abs=0.05)
    assert miou["difference"]["large"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite(value: float) -> None:
    broken = plane(5)
    broken[3, 3] = value
    truth = Truth(encode_rle(mask_from_logits(plane(5), frame(), 0.5), 300, 300), 3, 400.0)
    agreement = Agreement()
    agreement.add(*pair(plane(5), broken, frame(), box=4, truth=truth))
    agreement.add(*pair(broken, plane(5), frame(), box=5, truth=truth))
    agreement.add(*pair(plane(5), plane(6), frame(), box=6, truth=truth))
    found = agreement.summary()
    assert found["not_finite"] == {"count": 1, "boxes": [4]}
    assert found["reference_not_finite"] == {"count": 1, "boxes": [5]}
    assert found["boxes"] == 2 and found["mask_iou"]["mean"] == pytest.approx(0.5, abs=1e-5)
    assert found["logit_error"]["max"] == 1  # of the one box both have
    assert found["miou"]["difference"]["all"] == pytest.approx(-0.5, abs=1e-5)
    json.dumps(found, allow_nan=False)


def test_ids_are_listed_up_to_a_limit() -> None:
    agreement = Agreement()
    for box in range(LISTED + 5):
        agreement.add(*pair(plane(5), plane(np.nan), frame(), box=box))
    assert agreement.summary()["not_finite"] == {"count": LISTED + 5, "boxes": list(range(LISTED))}
