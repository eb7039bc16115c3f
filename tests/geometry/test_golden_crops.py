"""Crops and box masks, byte for byte as the reference made them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt.geometry.boxes import extended_box, inclusive_pixels
from mal_trt.geometry.crops import make_frame, read_crop, wrap

GOLDEN = Path(__file__).parents[1] / "golden"
PREP = json.loads((GOLDEN / "prep.json").read_text())
RECORDS = {record["id"]: record for record in PREP["annotations"]}
WIDTH, HEIGHT = PREP["image_size_wh"]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(GOLDEN / "photo.png").convert("RGB"))


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.uint8).tobytes()).hexdigest()


@pytest.mark.parametrize("size", [512, 224])
@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_test_time_crop(photo: np.ndarray, index: int, size: int) -> None:
    record = list(RECORDS.values())[index]
    expected = record[str(size)]
    frame = make_frame(record["bbox_xyxy"], WIDTH, HEIGHT, size)
    assert list(frame.extended) == expected["ext_box"]
    assert frame.area == pytest.approx(record["area"], rel=1e-6)  # the reference multiplies in float32
    crop = read_crop(photo, frame.extended, size)
    assert sha256(crop) == expected["crop_sha256"]

    x0, y0, x1, y1 = frame.inner
    box_mask = np.zeros((size, size), np.uint8)
    box_mask[y0:y1, x0:x1] = 1
    assert int(box_mask.sum()) == expected["boxmask_sum"]
    assert sha256(box_mask) == expected["boxmask_sha256"]

    step = size // 32
    with np.load(GOLDEN / "prep.npz") as samples:
        np.testing.assert_array_equal(crop[step // 2 :: step, step // 2 :: step], samples[f"crop{size}"][index])


@pytest.mark.parametrize("record", PREP["train"], ids=lambda record: str(record["id"]))
def test_training_crop(photo: np.ndarray, record: dict[str, Any]) -> None:
    box = RECORDS[record["id"]]["bbox_xyxy"]
    extended = extended_box(box, record["margins"])
    assert list(extended) == record["ext_box"]
    assert sha256(read_crop(photo, extended, 512)) == record["crop_sha256"]

    x0, y0, x1, y1 = inclusive_pixels(box)
    whole = np.zeros((HEIGHT, WIDTH), np.uint8)
    whole[y0:y1, x0:x1] = 1
    assert int(whole.sum()) == int(record["mask_sum_full"])
    mask = Image.fromarray(np.ascontiguousarray(wrap(whole, *extended)))
    assert sha256(np.asarray(mask.resize((512, 512), Image.Resampling.BICUBIC))) == record["mask_sha256"]
