"""The bundled model on points drawn by eye on the example photos: parts of another colour belong to their object."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mal_trt.measure.evaluate import evaluate

EXAMPLES = Path(__file__).parents[2] / "examples"
# The share of right points, and that of the object with the fewest, less .02.
LEAST = {"bundled": (0.927, 0.78), "bundled-edge": (0.93, 0.78)}


def test_every_example_has_points_of_both_kinds() -> None:
    boxes = {a["id"]: a for a in json.loads((EXAMPLES / "boxes.json").read_text())["annotations"]}
    records = json.loads((EXAMPLES / "points.json").read_text())["points"]
    assert [record["annotation_id"] for record in records] == list(boxes)
    for record in records:
        x, y, w, h = boxes[record["annotation_id"]]["bbox"]
        assert len(record["inside"]) == len(record["outside"]) == 10
        assert all(x <= px < x + w and y <= py < y + h for px, py in record["inside"])
        assert not set(map(tuple, record["inside"])) & set(map(tuple, record["outside"]))


@pytest.mark.parametrize("name", LEAST)
def test_share_of_points_that_a_bundled_model_gets_right(name: str) -> None:
    pytest.importorskip("onnxruntime")
    photos, boxes = EXAMPLES / "photos", EXAMPLES / "boxes.json"
    points = evaluate(photos, boxes, name, device="cpu", progress=False, points=EXAMPLES / "points.json")["points"]
    assert points["count"] == 420
    right, worst = LEAST[name]
    assert points["right"] >= right, points["objects"][:5]
    assert points["worst"] >= worst, points["objects"][0]
