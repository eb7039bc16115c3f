"""Inputs that people have, through whole runs: each labels what a plain COCO document of the same boxes labels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mal_trt import label
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.formats.boxes import Boxes, read_coco
from mal_trt.labelling.summary import Summary
from mal_trt.measure.evaluate import evaluate

Write = Callable[..., Any]
BOXES = 18


@pytest.fixture
def run(tmp_path: Path, tiny_model: Write) -> Callable[..., Summary]:
    def go(images: Path | None, boxes: Path | Boxes, out: str = "out.json", **options: Any) -> Summary:
        return label(images, boxes, tiny_model(), tmp_path / out, device="cpu", threads=1, progress=False, **options)

    return go


def as_yolo(boxes: Path, folder: Path, number: Callable[[int], str] = str) -> Path:
    document = json.loads(boxes.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for image in document["images"]:
        lines = []
        for record in document["annotations"]:
            if record["image_id"] == image["id"]:
                x, y, w, h = record["bbox"]
                shares = ((x + w / 2) / image["width"], (y + h / 2) / image["height"], w / 120, h / 80)
                lines.append(" ".join([number(0), *map(repr, shares)]))
        (folder / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    return folder


def edited(boxes: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    document = json.loads(boxes.read_text())
    edit(document)
    boxes.write_text(json.dumps(document))
    return boxes


def test_side_by_side(run: Write, data_set: Write) -> None:
    images, boxes = data_set()
    summary = run(None, as_yolo(boxes, images))
    assert summary.labelled == BOXES and summary.read == "read 18 boxes of 1 class from a YOLO data set"


def test_dataset_root_and_stray_texts(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    root = tmp_path / "set"
    as_yolo(boxes, root / "train" / "labels")
    shutil.move(images, root / "train" / "images")
    (root / "README.roboflow.txt").write_text("hello\n")
    (root / "data.yaml").write_text("path: .\ntrain: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['blob']\n")
    for number, (pictures, path) in enumerate(((root, root), (None, root), (root, root / "data.yaml"))):
        assert run(pictures, path, f"{number}.json").labelled == BOXES
    with pytest.raises(NothingDone, match="no annotation has a drawn mask"):  # the boxes are read, and have no masks
        evaluate(None, root, labels=tmp_path / "0.json")


def test_float_classes(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    assert run(images, as_yolo(boxes, tmp_path / "l", lambda n: f"{n:.1f}")).labelled == BOXES


@pytest.mark.parametrize(
    "other",
    [str.upper, lambda n: n.removesuffix(".png"), lambda n: f"C:\\x\\{n}", lambda n: n.replace("0001", "%30001")],
)
def test_names_that_differ(run: Write, data_set: Write, other: Callable[[str], str]) -> None:
    images, boxes = data_set()
    edited(boxes, lambda c: [i.update(file_name=other(i["file_name"])) for i in c["images"]])
    summary = run(images, boxes)
    assert summary.labelled == BOXES
    assert "\\" in other("x") or "found under another name" in summary.read


def test_strings_for_numbers(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()

    def edit(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image.update(width=str(image["width"]), height=f"{image['height']}.0")
        for record in content["annotations"]:
            bbox = [str(v) for v in record["bbox"]]
            record.update(bbox=bbox, image_id=str(record["image_id"]), category_id=str(record["category_id"]))

    assert run(images, edited(boxes, edit)).labelled == BOXES
    after = json.loads((tmp_path / "out.json").read_text())
    assert all(isinstance(v, float) for record in after["annotations"] for v in record["bbox"])


@pytest.mark.parametrize(("said", "same"), [("7", True), ("07", False), (" 7", False), ("--7", False), ("7.0", False)])
def test_ids_meet_by_one_rule(run: Write, data_set: Write, tmp_path: Path, said: str, same: bool) -> None:
    images, boxes = data_set(pictures=1)

    def edit(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = 7
        for record in content["annotations"]:
            record["image_id"] = said

    boxes = edited(boxes, edit)
    assert {record["image_id"] for record in read_coco(boxes)["annotations"]} == {7 if same else said}
    if same:
        assert not run(images, boxes).skipped
    else:
        with pytest.raises(NothingDone, match="unknown image_id"):
            run(images, boxes)


def test_nothing_labelled(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingDone) as caught:
        run(tmp_path / "empty", boxes)
    text = str(caught.value)
    assert caught.value.exit_code == 1 and "\n" not in text
    for part in ("picture missing: 18", "looked for '000000000001.png'", "holds no picture", "--images"):
        assert part in text
    edited(boxes, lambda c: [i.update(file_name=f"x{i['id']}.png") for i in c["images"]])
    with pytest.raises(NothingDone, match=r"looked for 'x1.png'.* holds 3 pictures such as '000000000001.png' and"):
        run(images, boxes)
    assert not (tmp_path / "out.json").exists() and not list(tmp_path.glob("*.journal*"))


def test_long_names_and_pipes(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    edited(boxes, lambda c: c["images"][0].update(file_name="a" * 300 + ".png"))
    (images / "000000000002.png").unlink()
    os.mkfifo(images / "000000000002.png")
    summary = run(images, boxes)
    assert summary.labelled == 6
    assert summary.skipped == {"picture cannot be read": 6, "picture is no regular file": 6}
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match=r"pipe\.json: cannot be read \(a named pipe\)"):
        run(images, tmp_path / "pipe.json", "o.json")


def test_one_picture_is_not_two(run: Write, data_set: Write) -> None:
    """Two records of different names would share a picture: the one that is called so keeps it."""
    images, boxes = data_set(pictures=1)
    other = {"id": 2, "file_name": "000000000001.JPG", "width": 120, "height": 80}
    record = {"id": 900, "image_id": 2, "category_id": 3, "bbox": [6, 10, 28, 20]}
    edited(boxes, lambda c: (c["images"].append(other), c["annotations"].append(record)))
    summary = run(images, boxes)
    assert summary.labelled == 6 and summary.skipped == {"several pictures fit the name": 1}


def test_csv_labelme_kitti(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set(pictures=1)
    plain = run(images, boxes, "plain.json")
    corners = [
        (r["bbox"][0], r["bbox"][1], r["bbox"][0] + r["bbox"][2], r["bbox"][1] + r["bbox"][3])
        for r in json.loads(boxes.read_text())["annotations"]
    ]
    name = "000000000001"
    rows = [f"{name}.png,{a},{b},{c},{d},blob" for a, b, c, d in corners]
    (tmp_path / "b.csv").write_text("\n".join(["file,xmin,ymin,xmax,ymax,class", *rows]))
    shapes = [{"label": "blob", "shape_type": "rectangle", "points": [[c, d], [a, b]]} for a, b, c, d in corners]
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / f"{name}.json").write_text(json.dumps({"shapes": shapes, "imagePath": f"{name}.png"}))
    (tmp_path / "k").mkdir()
    lines = [f"blob 0 0 0 {a} {b} {c} {d} 0 0 0 0 0 0 0" for a, b, c, d in corners]
    (tmp_path / "k" / f"{name}.txt").write_text("\n".join(lines))
    wanted = [r["segmentation"] for r in json.loads((tmp_path / "plain.json").read_text())["annotations"]]
    for path in ("b.csv", "lm", "k"):
        assert run(images, tmp_path / path, f"{path}.json").labelled == plain.labelled
        after = json.loads((tmp_path / f"{path}.json").read_text())
        assert [r["segmentation"] for r in after["annotations"]] == wanted


def test_resized_pictures(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    for file in images.iterdir():
        Image.open(file).resize((240, 160)).save(file)
    with pytest.raises(NothingDone, match=r"picture size differs from the document: 18.*--rescale labels them"):
        run(images, boxes)
    assert run(images, Boxes(boxes, rescale=True)).labelled == BOXES
    before, after = json.loads(boxes.read_text()), json.loads((tmp_path / "out.json").read_text())
    assert after["images"][0]["width"] == 240 and after["annotations"][0]["segmentation"]["size"] == [160, 240]
    assert [r["bbox"] for r in after["annotations"]] == [[2 * v for v in r["bbox"]] for r in before["annotations"]]
    edited(boxes, lambda c: c["images"][0].update(width=100))
    summary = run(images, Boxes(boxes, rescale=True), "other.json")
    assert summary.skipped == {"picture size differs from the document": 6}, "stretched is not resized"


def test_corners_where_sides_should_be(run: Write, data_set: Write) -> None:
    images, boxes = data_set()

    def edit(content: dict[str, Any]) -> None:
        for record in content["annotations"]:
            x, y, w, h = record["bbox"]
            record["bbox"] = [60 + x / 2, 40 + y / 2, min(120, 60 + x / 2 + w), min(80, 40 + y / 2 + h)]

    notes = run(images, edited(boxes, edit)).notes
    assert any("would fit as two corners" in note for note in notes)


def test_classes_counted_from_one(run: Write, data_set: Write) -> None:
    images, boxes = data_set(categories=[{"id": 0, "name": "a"}, {"id": 1, "name": "b"}])
    edited(boxes, lambda c: [r.update(category_id=1 + n % 2) for n, r in enumerate(c["annotations"])])
    summary = run(images, boxes)
    assert summary.skipped == {"unknown category_id": 9}
    assert any("seems to count from 1" in note for note in summary.notes)


def test_most_skipped_is_said_loudly(run: Write, data_set: Write) -> None:
    images, boxes = data_set()
    for name in ("000000000001.png", "000000000002.png"):
        (images / name).unlink()
    summary = run(images, boxes)
    assert summary.warning == "WARNING: 12 of 18 boxes have NO mask, most because: picture missing"
