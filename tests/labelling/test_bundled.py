"""The bundled model on the example photos: small, as exported, and better than a box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mal_trt import Labeler
from mal_trt.artifacts.models import INSIDE, resolve_model
from mal_trt.backends import open_backend
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.rle import decode_rle
from mal_trt.labelling.run import label

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("name", "largest"), [("bundled", 16e6), ("bundled-edge", 4e6)])
def test_it_is_small_and_trained_from_boxes(name: str, largest: float) -> None:
    model = resolve_model(name)
    assert model.stat().st_size <= largest
    backend = open_backend(name, "cpu")
    assert backend.contract.weights == "teacher" and backend.contract.input_dtype == "uint8"
    backend.close()


@pytest.mark.parametrize("name", INSIDE)
def test_it_gives_the_logits_pytorch_gave(name: str) -> None:
    backend = open_backend(name, "cpu", 1)
    with np.load(resolve_model(name).with_suffix(".parity.npz")) as parity:
        image, expected = parity["image"], parity["logits"]
    logits = backend.run(image, SizeClass.LARGE)
    backend.close()
    assert np.abs(logits - expected.reshape(logits.shape)).max() <= 1e-4 * np.ptp(expected)


@pytest.mark.parametrize("name", INSIDE)
def test_masks_of_the_examples_hug_their_objects(name: str, tmp_path: Path) -> None:
    summary = label(EXAMPLES / "photos", EXAMPLES / "boxes.json", name, tmp_path / "labels.json", progress=False)
    labels = json.loads((tmp_path / "labels.json").read_text())
    boxes = json.loads((EXAMPLES / "boxes.json").read_text())
    assert summary.labelled == len(boxes["annotations"]) == len(labels["annotations"])
    fills, agreement = [], []
    for annotation in labels["annotations"]:
        mask = decode_rle(annotation["segmentation"])
        ys, xs = np.nonzero(mask.mask)
        x, y, w, h = annotation["bbox"]
        x0, y0, x1, y1 = mask.x0 + xs.min(), mask.y0 + ys.min(), mask.x0 + xs.max() + 1, mask.y0 + ys.max() + 1
        overlap = max(0, min(x1, x + w) - max(x0, x)) * max(0, min(y1, y + h) - max(y0, y))
        agreement.append(overlap / ((x1 - x0) * (y1 - y0) + w * h - overlap))
        fills.append(annotation["area"] / (w * h))
    assert np.mean(agreement) > 0.9
    assert 0.5 < np.mean(fills) < 0.9, "masks as full as their boxes, or hardly there"


def test_yolo_lines_of_the_examples_as_training_tools_fill_them(tmp_path: Path) -> None:
    """Times the picture's size, to whole pixels, cv2.fillPoly: IoU of .99 with our masks on the mean, .97 at worst."""
    cv2 = pytest.importorskip("cv2")
    label(EXAMPLES / "photos", EXAMPLES / "boxes.json", out=tmp_path / "both", format="coco,yolo", progress=False)
    labels = json.loads((tmp_path / "both" / "coco.json").read_text())
    ious = []
    for image in labels["images"]:
        size = image["width"], image["height"]
        lines = (tmp_path / "both" / "yolo" / image["file_name"]).with_suffix(".txt").read_text().splitlines()
        records = [a for a in labels["annotations"] if a["image_id"] == image["id"]]
        for line, record in zip(lines, records, strict=True):
            points = (np.array(line.split()[1:], float).reshape(-1, 2) * size).astype(np.int32)
            filled = cv2.fillPoly(np.zeros(size[::-1], np.uint8), [points], 1).astype(bool)
            mask = decode_rle(record["segmentation"]).full(*size[::-1])
            ious.append((filled & mask).sum() / (filled | mask).sum())
    assert np.mean(ious) >= 0.99 and min(ious) >= 0.97


def test_the_flower_is_round() -> None:
    """The large flower fills about pi/4 of its box, and its corners are background."""
    boxes = json.loads((EXAMPLES / "boxes.json").read_text())
    image = next(i for i in boxes["images"] if i["file_name"].startswith("flower"))
    annotation = max((a for a in boxes["annotations"] if a["image_id"] == image["id"]), key=lambda a: a["bbox"][2])
    masks = Labeler()(EXAMPLES / "photos" / image["file_name"], [annotation["bbox"]], format="xywh").masks
    x, y, w, h = (int(v) for v in annotation["bbox"])
    inside = masks[0, y : y + h, x : x + w]
    rows, columns = np.mgrid[:h, :w] + 0.5
    disc = ((columns - w / 2) / (w / 2)) ** 2 + ((rows - h / 2) / (h / 2)) ** 2 <= 1
    assert (inside & disc).sum() / (inside | disc).sum() == pytest.approx(1.0, abs=0.1)
