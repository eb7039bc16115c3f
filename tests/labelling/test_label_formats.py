"""YOLO and VOC boxes through whole runs: the labels are those of the same boxes in a COCO document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mal_trt import label
from mal_trt.base.errors import InputError
from mal_trt.measure.evaluate import evaluate

Write = Callable[..., Any]
WIDTH, HEIGHT = 120, 80


def as_yolo(boxes: Path, folder: Path) -> Path:
    """The boxes of a document as a YOLO label folder; its classes are the document's categories less 3."""
    document = json.loads(boxes.read_text())
    folder.mkdir()
    for image in document["images"]:
        lines = []
        for record in document["annotations"]:
            if record["image_id"] == image["id"]:
                x, y, w, h = record["bbox"]
                shares = ((x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
                lines.append(" ".join([str(record["category_id"] - 3), *map(repr, shares)]))
        (folder / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("blob\n")
    return folder


def as_voc(boxes: Path, folder: Path) -> Path:
    """The boxes of a document as VOC files, which count pixels from 1."""
    document = json.loads(boxes.read_text())
    folder.mkdir()
    for image in document["images"]:
        objects = ""
        for record in document["annotations"]:
            if record["image_id"] == image["id"]:
                x, y, w, h = record["bbox"]
                sides = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                corners = "".join(f"<{name}>{value}</{name}>" for name, value in sides.items())
                objects += f"<object><name>blob</name><bndbox>{corners}</bndbox></object>"
        text = f"<annotation><filename>{image['file_name']}</filename>{objects}</annotation>"
        (folder / image["file_name"]).with_suffix(".xml").write_text(text)
    return folder


def run(images: Path, boxes: Path, model: Path, out: Path, **options: Any) -> Any:
    summary = label(images, boxes, model, out, batch=4, device="cpu", threads=1, progress=False, **options)
    return summary, json.loads(out.read_text())


@pytest.mark.parametrize("convert", [as_yolo, as_voc])
def test_the_labels_are_those_of_the_coco_document(
    tmp_path: Path, tiny_model: Write, data_set: Write, convert: Callable[[Path, Path], Path]
) -> None:
    images, boxes = data_set()
    model = tiny_model()
    _, coco = run(images, boxes, model, tmp_path / "coco.json")
    summary, other = run(images, convert(boxes, tmp_path / "labels"), model, tmp_path / "other.json")
    assert summary.labelled == 18 and summary.skipped == {}
    assert [i["file_name"] for i in other["images"]] == [i["file_name"] for i in coco["images"]]
    assert [c["name"] for c in other["categories"]] == ["blob"]
    for mine, theirs in zip(other["annotations"], coco["annotations"], strict=True):
        assert mine["bbox"] == pytest.approx(theirs["bbox"], abs=1e-9)
        assert mine["segmentation"] == theirs["segmentation"] and mine["area"] == theirs["area"]


def test_boxes_of_a_lost_picture_are_skipped_for_that(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    (images / "000000000002.png").unlink()
    labels = as_yolo(boxes, tmp_path / "labels")
    summary, _ = run(images, labels, tiny_model(), tmp_path / "labels.json")
    assert summary.skipped == {"picture missing": 6} and summary.labelled == 12


def test_a_changed_folder_is_another_run(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set()
    labels, model, out = as_yolo(boxes, tmp_path / "labels"), tiny_model(), tmp_path / "out.json"
    with monkeypatch.context() as patch:
        patch.setattr("mal_trt.labelling.run.write_outputs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(images, labels, model, out)
    changed = labels / "000000000001.txt"
    before = changed.read_text()
    changed.write_text(before + "\n0 0.5 0.5 0.5 0.5")
    with pytest.raises(InputError, match="cannot resume, this is another run"):
        run(images, labels, model, out, resume=True)
    changed.write_text(before)
    summary, _ = run(images, labels, model, out, resume=True)
    assert summary.resumed == summary.labelled == 18


def test_yolo_polygons_are_scored(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, _ = data_set(pictures=1)
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "000000000001.txt").write_text("0 0.05 0.125 0.2833 0.125 0.2833 0.375 0.05 0.375\n0 0.5 0.25 0.2 0.2")
    result = evaluate(images, labels, tiny_model(), device="cpu", threads=1, progress=False)
    assert result["count"] == 1 and result["miou"] > 0.5
    assert result["skipped_reasons"] == {"no segmentation": 1}
    shutil.rmtree(images)
    with pytest.raises(InputError, match="does not say where its pictures are"):
        evaluate(None, labels, labels=tmp_path / "labels.json")
