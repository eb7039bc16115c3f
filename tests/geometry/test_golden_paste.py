"""From logits to label: the reference's masks, for its thresholds, teacher, mixed and flip variants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt.geometry.crops import make_frame
from mal_trt.geometry.paste import mask_from_logits, rle_from_logits
from mal_trt.geometry.rle import decode_rle, encode_rle

GOLDEN = Path(__file__).parents[1] / "golden"
POST = json.loads((GOLDEN / "post.json").read_text())
BOXES = {a["id"]: a["bbox"] for a in json.loads((GOLDEN / "toy_coco.json").read_text())["annotations"]}
SIZE = (213, 320)


@pytest.fixture(scope="module")
def logits() -> dict[str, np.ndarray]:
    """Each variant's logits, float32 [n,128,128], in the order of its labels."""
    with np.load(GOLDEN / "post.npz") as file:
        raw = {name: file[name] for name in file.files}
    student = raw["logits"][:, 0].astype(np.float32)
    some = student[raw["sub_index"]]
    teacher = raw["logits_teacher"][:, 0].astype(np.float32)
    student_flip = raw["logits_student_flip"][:, 0, :, ::-1].astype(np.float32)
    teacher_flip = raw["logits_teacher_flip"][:, 0, :, ::-1].astype(np.float32)
    return {
        "thres_0.1": student,
        "thres_0.2_0.5_0.8": student,
        "teacher": teacher,
        "mixed": (some + teacher) / 2,
        "flip": (some + student_flip) / 2,
        "teacher_flip": (teacher + teacher_flip) / 2,
        "mixed_flip": (some + teacher + student_flip + teacher_flip) / 4,
    }


@pytest.mark.parametrize("variant", [name for name in POST if name != "soft_crop"])
def test_masks(logits: dict[str, np.ndarray], variant: str) -> None:
    labels: list[dict[str, Any]] = POST[variant]["labels"]
    assert len(labels) == len(logits[variant])
    thresholds = (0.2, 0.5, 0.8) if variant == "thres_0.2_0.5_0.8" else (0.1, 0.1, 0.1)
    for label, crop in zip(labels, logits[variant], strict=True):
        x, y, w, h = BOXES[label["id"]]
        frame = make_frame((x, y, x + w, y + h), SIZE[1], SIZE[0], 512)
        threshold = thresholds[frame.size_class]
        local = mask_from_logits(crop, frame, threshold)
        expected = decode_rle(label["segmentation"]).full(*SIZE)
        assert np.count_nonzero(local.full(*SIZE) != expected) <= 2, label["id"]
        assert rle_from_logits(crop, frame, threshold) == encode_rle(local, *SIZE)
