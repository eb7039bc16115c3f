"""`convert`: the masks of label files that exist, in other formats and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from label_sets import HEIGHT, WIDTH, MaskSet
from mal_trt import InputError, RunError, convert, label
from mal_trt.cli import app
from mal_trt.geometry.rle import decode_rle
from mal_trt.writers.formats import FORMATS, write_formats
from mal_trt.writers.options import Options

Write = Callable[..., Any]


@pytest.fixture
def labels(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A COCO label file and its masks: a ring with a dot in it, two parts, a line."""
    ring, two, line = (np.zeros((HEIGHT, WIDTH), bool) for _ in range(3))
    ring[1:10, 1:11] = True
    ring[3:8, 3:9] = False
    ring[5, 5] = True
    two[2:6, 1:5] = two[2:6, 6:10] = True
    line[7, 2:9] = True
    write_formats(MaskSet([[ring, two], [line]]), ("coco",), tmp_path / "labels.json", Options(), lambda _: None)
    return tmp_path / "labels.json", [ring, two, line]


def masks_of(path: Path) -> list[np.ndarray]:
    return [decode_rle(a["segmentation"]).full(HEIGHT, WIDTH) for a in json.loads(path.read_text())["annotations"]]


def test_coco_to_coco_is_the_same_text(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    done = convert(labels[0], tmp_path / "again.json", progress=False)
    assert (done.total, done.written, done.skipped, done.skipped_list) == (3, 3, {}, None)
    assert (tmp_path / "again.json").read_text() == labels[0].read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(tmp_path: Path, labels: tuple[Path, list[np.ndarray]], name: str) -> None:
    direct, out = tmp_path / "direct", tmp_path / "out"
    write_formats(MaskSet([labels[1][:2], labels[1][2:]]), (name,), direct, Options(), lambda _: None)
    convert(labels[0], out, name, progress=False)
    files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
    assert files
    for file in files:
        there = direct / file.relative_to(out) if out.is_dir() else direct
        assert name == "parquet" or file.read_bytes() == there.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_polygons_back_to_masks(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    convert(labels[0], tmp_path / "polygons.json", "coco-polygons", progress=False)
    convert(tmp_path / "polygons.json", tmp_path / "back.json", progress=False)
    for found, mask in zip(masks_of(tmp_path / "back.json"), labels[1], strict=True):
        assert np.array_equal(found, mask)


def test_yolo_there_and_back(tmp_path: Path, data_set: Write, tiny_model: Write) -> None:
    """What is read of YOLO polygons is what training tools see, so only bridges between parts are added."""
    images, boxes = data_set()
    label(images, boxes, tiny_model(), tmp_path / "labels.json", device="cpu", progress=False)
    convert(tmp_path / "labels.json", tmp_path / "yolo", "yolo", progress=False)
    done = convert(tmp_path / "yolo", tmp_path / "back.json", images=images, progress=False)
    assert done.written == 18
    before, after = (json.loads((tmp_path / f"{n}.json").read_text())["annotations"] for n in ("labels", "back"))
    for one, other in zip(before, after, strict=True):
        mask, found = (decode_rle(a["segmentation"]).full(80, 120) for a in (one, other))
        assert found[mask].all() and (found & ~mask).sum() <= 25


@pytest.mark.parametrize("name", ["cvat", "label-studio", "labelme", "parquet"])
def test_what_annotation_tools_read_is_read_back(
    tmp_path: Path, labels: tuple[Path, list[np.ndarray]], name: str
) -> None:
    """Without the pictures, whose sizes stand in these formats."""
    out = tmp_path / ("there" + FORMATS[name].ending)
    convert(labels[0], out, name, progress=False)
    done = convert(out, tmp_path / "back.json", progress=False)
    found = masks_of(tmp_path / "back.json")
    assert all(np.array_equal(a, b) for a, b in zip(found, labels[1], strict=True))
    assert name.replace("-", "") in done.read.replace(" ", "").lower()


def test_boxes_alone_and_bad_masks(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    document = json.loads(labels[0].read_text())
    del document["annotations"][0]["segmentation"]
    document["annotations"][1]["segmentation"] = [[1, 2, 3]]
    labels[0].write_text(json.dumps(document))
    done = convert(labels[0], tmp_path / "out.json", progress=False)
    assert (done.total, done.written) == (3, 1) and done.skipped["no mask"] == 1 and done.skipped_list is not None
    assert [entry["id"] for entry in json.loads(done.skipped_list.read_text())] == [1, 2]
    document["annotations"] = document["annotations"][:1]
    labels[0].write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"labels\.json: no mask in it \(no mask: 1\); masks for boxes are made by"):
        convert(labels[0], tmp_path / "none.json", progress=False)
    assert not (tmp_path / "none.json").exists()


def test_what_cannot_be_used(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    with pytest.raises(InputError, match="never overwritten"):
        convert(labels[0], labels[0], progress=False)
    convert(labels[0], tmp_path / "new" / "folder" / "out.json", progress=False)
    with pytest.raises(InputError, match="cannot hold the output"):
        convert(labels[0], labels[0] / "out.json", progress=False)
    document = json.loads(labels[0].read_text())
    del document["images"][0]["width"]
    labels[0].write_text(json.dumps(document))
    done = convert(labels[0], tmp_path / "out.json", progress=False)
    assert done.written == 1 and done.skipped == {"picture size unknown": 2}
    convert(labels[0], tmp_path / "yolo", "yolo", progress=False)
    with pytest.raises(RunError, match="give --images"):
        convert(tmp_path / "yolo", tmp_path / "back.json", progress=False)


def test_pictures_that_are_not_needed_are_not_in_the_way(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    """Labels that lie beside folders in which several files have a picture's name."""
    source = tmp_path / "source"
    source.mkdir()
    convert(labels[0], source / "all", "cvat,png-instance,png-semantic", progress=False)
    (source / "all" / "cvat.xml").rename(source / "cvat.xml")
    done = convert(source / "cvat.xml", tmp_path / "back.json", progress=False)
    assert (done.written, done.skipped) == (3, {})
    names = [image["file_name"] for image in json.loads((tmp_path / "back.json").read_text())["images"]]
    assert names == [image["file_name"] for image in json.loads(labels[0].read_text())["images"]]


def test_the_command(tmp_path: Path, labels: tuple[Path, list[np.ndarray]]) -> None:
    out = tmp_path / "all"
    done = CliRunner().invoke(app, ["convert", str(labels[0]), "-o", str(out), "--format", "yolo,cvat"])
    assert done.exit_code == 0 and "3 of 3 masks written" in done.output, done.output
    assert sorted(p.name for p in out.iterdir()) == ["cvat.xml", "yolo"]
    again = CliRunner().invoke(app, ["convert", str(labels[0]), "-o", str(out)])
    assert again.exit_code == 2 and "Traceback" not in again.output


@pytest.mark.parametrize("polygons", [False, True])
def test_masks_without_boxes(tmp_path: Path, labels: tuple[Path, list[np.ndarray]], polygons: bool) -> None:
    document = json.loads(labels[0].read_text())
    for record in document["annotations"]:
        del record["bbox"]
    if polygons:
        document["annotations"][0]["segmentation"] = [[1, 1, 211, 1, 211, 10, 1, 10]]
    labels[0].write_text(json.dumps(document))
    done = convert(labels[0], tmp_path / "again.json", progress=False)
    assert (done.written, done.skipped) == (3, {})
    boxes = [record["bbox"] for record in json.loads((tmp_path / "again.json").read_text())["annotations"]]
    assert boxes == [[1, 1, 210 if polygons else 10, 9], [1, 2, 9, 4], [2, 7, 7, 1]]
    document["annotations"][0]["segmentation"] = {"size": [True, "a"], "counts": [1]}
    labels[0].write_text(json.dumps(document))
    assert convert(labels[0], tmp_path / "bad.json", progress=False).skipped == {"bbox missing": 1}


def test_a_full_disk_says_nothing_of_going_on(
    tmp_path: Path, labels: tuple[Path, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mal_trt.labelling.outputs.write_formats", full)
    with pytest.raises(RunError, match=r"No space left on device\); make room and run again$"):
        convert(labels[0], tmp_path / "out.json", progress=False)
