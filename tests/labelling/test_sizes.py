"""Models that take crops of another side for small, medium and large boxes, from the file to the masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mal_trt import Labeler, label
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame
from mal_trt.labelling.predictor import Predictor
from tiny_model import write_tiny_model

Write = Callable[..., Any]
SIZES = (32, 64, 96)
QUIET = {"progress": False, "threads": 1, "device": "cpu"}
# XYXY, two of each size class.
BOXES = [(10, 10, 40, 40), (60, 20, 110, 70), (5, 30, 195, 170), (50, 50, 80, 75), (20, 90, 90, 160), (30, 2, 180, 120)]


def records(images: int) -> list[dict[str, Any]]:
    return [
        {
            "id": 10 * image + place,
            "image_id": image,
            "category_id": 3,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": 1,
            "iscrowd": 0,
        }
        for image in range(1, images + 1)
        for place, (x0, y0, x1, y1) in enumerate(BOXES)
    ]


def masks(path: Path) -> dict[int, Any]:
    return {entry["id"]: entry["segmentation"] for entry in json.loads(path.read_text())["annotations"]}


@pytest.mark.parametrize("head", ["dynamic", "fixed"])
def test_each_box_gets_the_mask_of_a_model_of_its_side(tmp_path: Path, data_set: Write, head: str) -> None:
    images, boxes = data_set(pictures=3, size=(200, 180), records=records(3))
    sized = write_tiny_model(tmp_path / "sized.onnx", sizes=SIZES, head=head)
    label(images, boxes, sized, tmp_path / "sized.json", batch=4, **QUIET)
    found = masks(tmp_path / "sized.json")
    assert len(found) == 18
    for size, side in zip(SizeClass, SIZES, strict=True):
        alone = write_tiny_model(tmp_path / f"{side}.onnx", side=side, head=head)
        label(images, boxes, alone, tmp_path / f"{side}.json", batch=4, **QUIET)
        expected, other = masks(tmp_path / f"{side}.json"), 0
        for key, mask in found.items():
            x0, y0, x1, y1 = BOXES[key % 10]
            if make_frame((x0, y0, x1, y1), 200, 180, 32).size_class is size:
                assert mask == expected[key]
            else:
                other += mask != expected[key]
        assert other  # the side does change masks


def test_batch_mates_change_no_mask(tmp_path: Path, data_set: Write) -> None:
    images, boxes = data_set(pictures=3, size=(200, 180), records=records(3))
    sized = write_tiny_model(tmp_path / "sized.onnx", sizes=SIZES, head="fixed")
    for batch in (1, 3, 16):
        label(images, boxes, sized, tmp_path / f"{batch}.json", batch=batch, **QUIET)
    assert masks(tmp_path / "1.json") == masks(tmp_path / "3.json") == masks(tmp_path / "16.json")


def test_the_labeler_cuts_each_box_at_its_side(tmp_path: Path) -> None:
    sized = write_tiny_model(tmp_path / "sized.onnx", sizes=SIZES)
    picture = np.random.default_rng(0).integers(0, 255, (180, 200, 3), np.uint8)
    with Labeler(sized, threads=1) as labeler:
        found = labeler(picture, BOXES)
    for place, side in enumerate((*SIZES, *SIZES)):
        with Labeler(write_tiny_model(tmp_path / f"{side}.onnx", side=side), threads=1) as alone:
            np.testing.assert_array_equal(found.masks[place], alone(picture, [BOXES[place]]).masks[0])


def test_frames_of_many_boxes_are_those_of_each(tmp_path: Path) -> None:
    predictor = Predictor(write_tiny_model(tmp_path / "sized.onnx", sizes=SIZES), "cpu", threads=1)
    frames = predictor.frames(np.array(BOXES, np.float64), np.array([(200, 180)] * len(BOXES)))
    assert list(frames) == [predictor.frame(box, 200, 180) for box in BOXES]
    assert [frame.size for frame in frames] == [*SIZES, *SIZES]
    assert len(predictor.frames(np.zeros((0, 4)), np.zeros((0, 2), np.int64))) == 0
    predictor.close()


def test_a_batch_of_another_side_is_refused(tmp_path: Path) -> None:
    backend = open_backend(write_tiny_model(tmp_path / "sized.onnx", sizes=SIZES), "cpu", 1)
    with pytest.raises(InputError, match=r"this model takes \[N, 3, 32, 32\] for small boxes"):
        backend.run(np.zeros((1, 3, 96, 96), np.uint8), SizeClass.SMALL)
    backend.close()
