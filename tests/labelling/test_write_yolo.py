"""`label --format yolo`: a folder that YOLO trainers take, and that holds the masks of the COCO labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt import label
from mal_trt.base.errors import InputError, RunError
from mal_trt.formats.boxes import read_boxes
from mal_trt.formats.images import open_images
from mal_trt.geometry.fill import painted
from mal_trt.geometry.rle import decode_rle
from mal_trt.labelling.summary import Summary

Write = Callable[..., Any]
WIDTH, HEIGHT = 120, 80


def run(images: Path, boxes: Path, model: Path, out: Path, **options: Any) -> Summary:
    return label(images, boxes, model, out, batch=4, device="cpu", threads=1, progress=False, **options)


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def drawn(line: str) -> np.ndarray:
    """The pixels of a label line as training tools fill it, bool [HEIGHT,WIDTH]."""
    shares = np.array([float(word) for word in line.split()[1:]]).reshape(-1, 2)
    return painted([shares * (WIDTH, HEIGHT)], HEIGHT, WIDTH)


def test_polygons_are_the_masks(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model()
    run(images, boxes, model, tmp_path / "labels.json")
    summary = run(images, boxes, model, tmp_path / "labels", format="yolo")
    assert summary.labelled == 18 and summary.out == tmp_path / "labels"
    coco = json.loads((tmp_path / "labels.json").read_text())
    stems = [Path(image["file_name"]).stem for image in coco["images"]]
    assert names(tmp_path / "labels") == sorted(["classes.txt", *(f"{stem}.txt" for stem in stems)])
    assert (tmp_path / "labels" / "classes.txt").read_text() == "blob\n"
    for image, stem in zip(coco["images"], stems, strict=True):
        lines = (tmp_path / "labels" / f"{stem}.txt").read_text().splitlines()
        records = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for line, record in zip(lines, records, strict=True):
            assert line.startswith("0 ")
            mask = decode_rle(record["segmentation"]).full(HEIGHT, WIDTH)
            filled = drawn(line)
            assert (filled & mask).sum() == mask.sum()
            assert (filled & ~mask).sum() <= 25, "a bridge between the two blobs of a larger box"
    assert [p.name for p in tmp_path.iterdir() if "journal" in p.name or "part" in p.name] == []


def test_the_folder_is_read_back(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    run(images, boxes, tiny_model(), tmp_path / "labels", format="yolo")
    document = read_boxes(tmp_path / "labels", open_images(images))
    assert len(document["annotations"]) == 18 and all(a["segmentation"] for a in document["annotations"])
    assert document["categories"] == [{"id": 0, "name": "blob"}]


def test_classes_are_places_in_the_document(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    categories = [{"id": 9, "name": "tall\nbuilding"}, {"id": 3, "name": "blob"}]
    images, boxes = data_set(pictures=1, categories=categories)
    run(images, boxes, tiny_model(), tmp_path / "labels", format="yolo")
    assert (tmp_path / "labels" / "classes.txt").read_text() == "tall building\nblob\n"
    assert (tmp_path / "labels" / "000000000001.txt").read_text().startswith("1 ")


def test_documents_without_categories(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1, categories=None)
    run(images, boxes, tiny_model(), tmp_path / "labels", format="yolo")
    assert (tmp_path / "labels" / "classes.txt").read_text() == "3\n"


def test_empty_pictures_and_lost_ones(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    document = json.loads(boxes.read_text())
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != 1]
    boxes.write_text(json.dumps(document))
    (images / "000000000002.png").unlink()
    summary = run(images, boxes, tiny_model(), tmp_path / "labels", format="yolo")
    assert summary.skipped == {"picture missing": 6}
    assert names(tmp_path / "labels") == ["000000000001.txt", "000000000003.txt", "classes.txt"]
    assert (tmp_path / "labels" / "000000000001.txt").read_text() == ""


def test_pictures_that_would_share_a_file(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=2)
    document = json.loads(boxes.read_text())
    (images / "000000000002.png").rename(images / "000000000001.bmp")
    document["images"][1]["file_name"] = "000000000001.bmp"
    boxes.write_text(json.dumps(document))
    model, out = tiny_model(), tmp_path / "labels"
    with pytest.raises(RunError, match=r"share the label file 000000000001\.txt"):
        run(images, boxes, model, out, format="yolo")
    assert not out.exists()
    assert run(images, boxes, model, out, resume=True).resumed == 12, "nothing is lost"


def test_an_interrupted_run_goes_on(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set()
    model, out = tiny_model(), tmp_path / "labels"
    for function in ("write_outputs", "write_overlays"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mal_trt.labelling.run.{function}", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(
                    images, boxes, model, out, format="yolo", overlay=tmp_path / "o", resume=function != "write_outputs"
                )
    assert run(images, boxes, model, out, format="yolo", overlay=tmp_path / "o", resume=True).resumed == 18
    assert len(names(out)) == 4 and len(names(tmp_path / "o")) == 3


def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model, out = tiny_model(), tmp_path / "labels"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mal_trt.labelling.outputs.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(RunError, match=r"labels: cannot be written \(No space left\).*--resume"):
            run(images, boxes, model, out, format="yolo")
    assert not out.exists() and not list(tmp_path.glob(".labels*"))
    assert run(images, boxes, model, out, format="yolo", resume=True).resumed == 18


def test_names_with_dots_and_a_picture_called_like_the_class_names(
    tmp_path: Path, tiny_model: Write, data_set: Write
) -> None:
    images, boxes = data_set(pictures=2)
    document = json.loads(boxes.read_text())
    (images / "v1.0").mkdir()
    for record, name in zip(document["images"], ("v1.0/plain", "a.b.png"), strict=True):
        (images / record["file_name"]).rename(images / name)
        record["file_name"] = name
    boxes.write_text(json.dumps(document))
    model = tiny_model()
    run(images, boxes, model, tmp_path / "labels", format="yolo")
    assert names(tmp_path / "labels") == ["a.b.txt", "classes.txt", "v1.0/plain.txt"]
    (images / "a.b.png").rename(images / "classes.png")
    document["images"][1]["file_name"] = "classes.png"
    boxes.write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"classes\.png and the class names would share"):
        run(images, boxes, model, tmp_path / "other", format="yolo")


def test_a_folder_that_came_between_hides_nothing(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=1)
    model, out = tiny_model(), tmp_path / "labels"
    with monkeypatch.context() as patch:
        patch.setattr("mal_trt.labelling.run.write_outputs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(images, boxes, model, out, format="yolo")
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"labels: came into being meanwhile"):
        run(images, boxes, model, out, format="yolo", resume=True)
    assert names(out) == ["mine.txt"]
    (out / "mine.txt").unlink()
    assert run(images, boxes, model, out, format="yolo", resume=True).resumed == 6
    assert names(out) == ["000000000001.txt", "classes.txt"]


def test_an_existing_folder_is_kept(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    out = tmp_path / "labels"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="never overwritten"):
        run(images, boxes, tiny_model(), out, format="yolo")
    assert names(out) == ["mine.txt"]
