"""IoU, boundary IoU and the means: against direct computations and the reference's own figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle
from mal_trt.measure.metrics import (
    ObjectScore,
    boundary,
    boundary_iou,
    mask_iou,
    score_object,
    summarize,
)

GOLDEN = Path(__file__).parents[1] / "golden"
POST = json.loads((GOLDEN / "post.json").read_text())
TOY = json.loads((GOLDEN / "toy_coco.json").read_text())
TRUTH = {a["id"]: a for a in TOY["annotations"]}
HEIGHT, WIDTH = 213, 320


def direct_boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask whose square neighbourhood is not all mask, one pixel at a time."""
    padded = np.pad(mask, distance)
    edge = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        edge[y, x] = not padded[y : y + 2 * distance + 1, x : x + 2 * distance + 1].all()
    return edge


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, 1 + max(height, width) / 2)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    return mask


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), height=st.integers(1, 40), width=st.integers(1, 40), distance=st.integers(1, 6))
def test_boundary_is_the_direct_one(seed: int, height: int, width: int, distance: int) -> None:
    mask = blobs(seed, height, width)
    local = decode_rle(encode_rle(LocalMask(0, 0, mask), height, width))
    assert np.array_equal(boundary(local, distance).full(height, width), direct_boundary(mask, distance))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), height=st.integers(1, 120), width=st.integers(1, 120))
def test_ious_are_the_direct_ones(seed: int, height: int, width: int) -> None:
    a, b = blobs(seed, height, width), blobs(seed + 1, height, width)
    rles = [encode_rle(LocalMask(0, 0, mask), height, width) for mask in (a, b)]
    assert mask_iou(*rles) == pytest.approx((a & b).sum() / max((a | b).sum(), 1), abs=1e-6)
    distance = max(1, round(0.02 * np.hypot(height, width)))
    edges = [direct_boundary(mask, distance) for mask in (a, b)]
    expected = (edges[0] & edges[1]).sum() / max((edges[0] | edges[1]).sum(), 1)
    assert boundary_iou(*rles) == pytest.approx(expected, abs=1e-6)


def test_boundary_iou_sees_what_iou_hides() -> None:
    y, x = np.mgrid[:200, :200]
    disc = (y - 100) ** 2 + (x - 100) ** 2 < 80**2
    box = np.zeros_like(disc)
    box[20:181, 20:181] = True
    rles = [encode_rle(LocalMask(0, 0, mask), 200, 200) for mask in (disc, box)]
    assert mask_iou(*rles) > 0.75
    assert boundary_iou(*rles) < 0.35
    assert mask_iou(rles[0], rles[0]) == pytest.approx(1, abs=1e-6)
    assert boundary_iou(rles[0], rles[0]) == pytest.approx(1, abs=1e-6)


def reference_scores(labels: list[dict[str, Any]]) -> list[ObjectScore]:
    scores = []
    for label in labels:
        truth = TRUTH[label["id"]]
        area = truth["bbox"][2] * truth["bbox"][3]
        rle = to_rle(truth["segmentation"], HEIGHT, WIDTH)
        scores.append(score_object(label["segmentation"], rle, truth["category_id"], area))
    return scores


@pytest.mark.parametrize("variant", [name for name in POST if name != "soft_crop"])
def test_golden_ious(variant: str) -> None:
    labels = POST[variant]["labels"]
    for label, score in zip(labels, reference_scores(labels), strict=True):
        assert score.iou == pytest.approx(label["iou"], abs=1e-3 if score.area < 100 else 1e-4)


def test_golden_means() -> None:
    expected = POST["thres_0.1"]["metrics_batch1"]
    names = {category["id"]: category["name"] for category in TOY["categories"]}
    result = summarize(reference_scores(POST["thres_0.1"]["labels"]), names)
    assert result["miou"] == pytest.approx(expected["mIoU"], abs=1e-6)
    for size, figures in zip(("small", "medium", "large"), expected["area"], strict=True):
        assert result[f"miou_{size}"] == pytest.approx(figures["mIoU"], abs=1e-6)
    assert list(result["per_class"]) == ["alpha", "beta", "gamma", "delta"]
    for figures, total, count in zip(result["per_class"].values(), expected["total"], expected["cnt"], strict=False):
        assert figures["count"] == count
        assert figures["iou"] == pytest.approx(total / count, abs=1e-5)
    assert result["miou_instance"] == pytest.approx(sum(expected["total"]) / sum(expected["cnt"]), abs=1e-5)
    assert result["count"] == 20


def test_means_by_hand() -> None:
    scores = [
        ObjectScore(1, 1024.0, 0.2, 0.1),  # 32^2 is still small, 96^2 still medium
        ObjectScore(1, 9216.0, 0.4, 0.1),
        ObjectScore(2, 9216.5, 0.9, 0.7),
    ]
    result = summarize(scores, {2: "b", 1: "a", 3: "unused"})
    assert result["miou"] == pytest.approx((0.3 + 0.9) / 2, abs=1e-5)
    assert result["miou_instance"] == pytest.approx(0.5)
    assert result["miou_small"] == pytest.approx(0.2, abs=1e-5)
    assert result["miou_medium"] == pytest.approx(0.4, abs=1e-5)
    assert result["miou_large"] == pytest.approx(0.9, abs=1e-5)
    assert result["boundary_iou"] == pytest.approx(0.4, abs=1e-5)
    assert [(name, f["count"]) for name, f in result["per_class"].items()] == [("b", 1), ("a", 2)]


def test_recall_and_precision_are_shares_of_pixels() -> None:
    half, whole, none = ({"size": [4, 4], "counts": counts} for counts in ([0, 4, 12], [0, 8, 8], [16]))
    half, whole, none = (to_rle(mask, 4, 4) for mask in (half, whole, none))
    pairs = ((half, whole), (whole, half), (none, whole), (whole, none))
    found = [score_object(*pair, 1, 9.0) for pair in pairs]
    assert [(one.recall, one.precision) for one in found] == [(0.5, 1.0), (1.0, 0.5), (0.0, 0.0), (0.0, 0.0)]
    scores = [score_object(half, whole, 1, 9.0), score_object(whole, whole, 1, 9.0), score_object(whole, half, 2, 9.0)]
    result = summarize(scores, {})
    assert result["recall"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert result["precision"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_no_objects_and_awkward_names() -> None:
    empty = summarize([], {1: "a"})
    assert empty["miou"] is empty["miou_instance"] is empty["miou_small"] is empty["boundary_iou"] is None
    assert empty["per_class"] == {} and empty["count"] == 0
    scores = [ObjectScore(key, 10.0, 0.5, 0.5) for key in (1, 2, 3)]
    assert list(summarize(scores, {1: "a", 2: "a"})["per_class"]) == ["a (id 1)", "a (id 2)", "(id 3)"]
