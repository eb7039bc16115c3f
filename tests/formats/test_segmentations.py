"""Every way COCO writes a segmentation, and the ways it is written wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from mal_trt.formats.segmentations import to_rle

GOLDEN = Path(__file__).parents[1] / "golden"
TRUTH = json.loads((GOLDEN / "toy_coco.json").read_text())["annotations"]
SUMS = {a["id"]: a["gtmask_sum_full"] for a in json.loads((GOLDEN / "prep.json").read_text())["annotations"]}


@pytest.mark.parametrize("annotation", [a for a in TRUTH if a["id"] in SUMS], ids=lambda a: str(a["id"]))
def test_golden_areas(annotation: dict[str, Any]) -> None:
    rle = to_rle(annotation["segmentation"], 213, 320)
    assert isinstance(rle["counts"], str)
    assert int(coco.area(rle)) == SUMS[annotation["id"]]


def test_the_three_forms_agree() -> None:
    square = to_rle([[2, 1, 6, 1, 6, 4, 2, 4]], 8, 10)
    mask = np.zeros((8, 10), bool)
    mask[1:4, 2:6] = True
    assert np.array_equal(coco.decode(square).astype(bool), mask)
    assert to_rle(square, 8, 10) == square
    assert to_rle({"size": [8, 10], "counts": square["counts"].encode()}, 8, 10) == square
    assert to_rle({"size": [8, 10], "counts": [17, 3, 5, 3, 5, 3, 5, 3, 36]}, 8, 10) == square


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "neither"),
        ("abc", "neither"),
        ([], "empty"),
        ([[]], "polygon"),
        ([[1, 2, 3, 4]], "polygon"),
        ([[1, 2, 3, 4, 5]], "polygon"),
        ([[1, 2, 3, 4, 5, float("nan")]], "polygon"),
        ([[1, 2, 3, 4, 5, "6"]], "polygon"),
        ([[0, 0, 1e9, 10, 1e9, 1e9]], "too far outside"),
        ([[0, 0, 10**400, 10, 5, 5]], "too far outside"),
        ([[0, 0, -1001, 10, 5, 5]], "too far outside"),
        ([1, 2, 3, 4, 5, 6], "polygon"),
        ({}, "size"),
        ({"size": [10, 8], "counts": [80]}, "size"),
        ({"size": [8, 10]}, "cannot be read"),
        ({"size": [8, 10], "counts": 10**30}, "cannot be read"),
        ({"size": [8, 10], "counts": [10**30]}, "cannot be read"),
        ({"size": [8, 10], "counts": 5}, "cannot be read"),
        ({"size": [8, 10], "counts": ["x"]}, "cannot be read"),
        ({"size": [8, 10], "counts": "é"}, "cannot be read"),
        ({"size": [8, 10], "counts": []}, "add up"),
        ({"size": [8, 10], "counts": ""}, "cannot be read"),
        ({"size": [8, 10], "counts": "o"}, "cannot be read"),
        ({"size": [8, 10], "counts": [79]}, "add up"),
        ({"size": [8, 10], "counts": [90, -10]}, "add up"),
        ({"size": [8, 10], "counts": "`2P"}, "cannot be read"),
        ({"size": [8, 10], "counts": "o1"}, "add up"),
    ],
)
def test_what_cannot_be_read_says_why(segmentation: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_rle(segmentation, 8, 10)


@pytest.mark.parametrize(
    ("segmentation", "height", "width", "reason"),
    [
        ([[0, 0, 1e9, 10, 1e9, 1e9]], 2, 2_000_000_000, "too far outside"),
        ([[0, 0, 5, 0, 5, 5]], 10, 2_000_000_000, "of 2,000,000,000 x 10 pixels, more than"),
        ({"size": [1 << 16, 1 << 16], "counts": [1 << 32]}, 1 << 16, 1 << 16, "of 65,536 x 65,536 pixels, more than"),
    ],
)
def test_pictures_that_are_said_to_be_huge(segmentation: Any, height: int, width: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_rle(segmentation, height, width)


def test_a_polygon_that_leaves_its_picture_is_filled_inside() -> None:
    mask = coco.decode(to_rle([[-500, 2, 900, 2, 900, 700, -500, 700]], 8, 10)).astype(bool)
    assert not mask[:2].any() and mask[2:].all()
