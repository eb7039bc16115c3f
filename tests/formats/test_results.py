"""A bare list of COCO results, with the COCO file that knows its pictures and classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from box_files import HEIGHT, WIDTH, coco, write
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.formats.boxes import Boxes, boxes_sha256
from mal_trt.formats.images import open_images


@pytest.fixture
def results(tmp_path: Path) -> Path:
    polygon = [[5, 5, 25, 5, 25, 15, 5, 15]]
    records = [
        {"image_id": name, "category_id": "dog", "bbox": [5, 5, 20, 10], "segmentation": polygon, "score": 0.5}
        for name in ("a.png", "b.png")
    ]
    return write(tmp_path / "results.json", records)


def command(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["convert", *map(str, words)])
    return done.exit_code, done.output + done.stderr


def test_pictures_and_classes_of_another_file(tmp_path: Path, results: Path, pictures: Path) -> None:
    boxes = Boxes(results, image_list=coco(tmp_path))
    document = boxes.document(open_images(pictures))
    assert [(i["file_name"], i["width"], i["height"]) for i in document["images"]] == [
        (name, WIDTH, HEIGHT) for name in ("a.png", "b.png")
    ]
    assert [c["name"] for c in document["categories"]] == ["cat", "dog"]
    assert [(a["id"], a["score"]) for a in document["annotations"]] == [(1, 0.5), (2, 0.5)]
    assert boxes.sha256() != boxes_sha256(results)


def test_converted_without_pictures(tmp_path: Path, results: Path) -> None:
    code, said = command(results, "-o", tmp_path / "out.json", "--image-list", coco(tmp_path))
    assert code == 0 and "2 of 2 masks written; read 2 boxes of 1 class from a list of COCO results" in said
    records = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert [(r["id"], r["score"], r["area"]) for r in records] == [(1, 0.5, 200), (2, 0.5, 200)]


def test_what_is_missing_is_named(tmp_path: Path, results: Path) -> None:
    code, said = command(results, "-o", tmp_path / "out.json")
    assert code == 2 and "give --image-list" in said
    code, said = command(results, "-o", tmp_path / "out.json", "--image-list", results)
    assert code == 2 and "results.json: no `images`" in said
    with pytest.raises(InputError, match="names its pictures itself; leave out the image list"):
        Boxes(coco(tmp_path), image_list=results)
