"""YOLO and VOC boxes become the COCO document they describe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from box_files import HEIGHT, WIDTH
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import boxes_sha256, read_boxes
from mal_trt.formats.images import open_images
from mal_trt.geometry.rle import decode_rle


def yolo(folder: Path, **files: str) -> Path:
    labels = folder / "labels"
    labels.mkdir(exist_ok=True)
    for name, text in files.items():
        (labels / f"{name}.txt").write_text(text)
    return labels


def voc(folder: Path, name: str, boxes: list[tuple[str, int, int, int, int]], size: bool = True) -> Path:
    objects = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for kind, a, b, c, d in boxes
    )
    shape = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>" if size else ""
    labels = folder / "voc"
    labels.mkdir(exist_ok=True)
    (labels / f"{name}.xml").write_text(f"<annotation><filename>{name}.png</filename>{shape}{objects}</annotation>")
    return labels


def test_yolo_boxes_and_polygons(tmp_path: Path, pictures: Path) -> None:
    labels = yolo(
        tmp_path, a="1 0.5 0.5 0.5 0.5\n\n0 0.100001 0.25 0.2 0.5\n", b="0 0 0 0.5 0 0.5 1", gone="0 .5 .5 1 1"
    )
    (labels / "classes.txt").write_text("cat\ndog\n")
    document = read_boxes(labels, open_images(pictures))
    assert [i["file_name"] for i in document["images"]] == ["a.png", "b.png", "gone"]
    assert [c["name"] for c in document["categories"]] == ["cat", "dog"]
    first, second, polygon, lost = document["annotations"]
    assert first["bbox"] == [20, 15, 40, 30] and first["category_id"] == 1
    assert second["bbox"] == pytest.approx([0, 0, 16, 30], abs=1e-3)
    assert second["bbox"][0] == 0, "a rounding error does not leave the picture"
    assert polygon["bbox"] == [0, 0, 40, 60]
    triangle = decode_rle(polygon["segmentation"]).full(60, 80)
    assert triangle[0, :41].all() and triangle[30, 40] and not triangle[:, 41:].any() and not triangle[30, :20].any()
    assert lost["image_id"] == 3 and min(lost["bbox"][2:]) > 0, "the picture is at fault, not the box"


def test_yolo_scores(tmp_path: Path, pictures: Path) -> None:
    labels = yolo(tmp_path, a="0 0.5 0.5 0.5 0.5 0.875\n0 0 0 0.5 0 0.5 1 0.25", b="0 0.5 0.5 0.5 0.5")
    boxes = read_boxes(labels, open_images(pictures))["annotations"]
    assert [box.get("score") for box in boxes] == [0.875, 0.25, None]
    assert boxes[0]["bbox"] == boxes[2]["bbox"] and boxes[1]["segmentation"]["size"] == [60, 80]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("0 .5 .5 .5 .5 .9 7\n1 .5 .5 .5 .5 .8 1", [(0.9, 7), (0.8, 1)]),
        ("0 .5 .5 .5 .5 7\n1 .5 .5 .5 .5 1", [(None, 7), (None, 1)]),
        ("0 .5 .5 .5 .5 .9 1\n0 .5 .5 .5 .5 1 1", [(0.9, 1), (1, 1)]),
        ("0 .5 .5 .5 .5 1\n0 .5 .5 .5 .5 .9", [(1, None), (0.9, None)]),
    ],
)
def test_yolo_boxes_of_a_tracker(tmp_path: Path, pictures: Path, lines: str, found: list[tuple[float, int]]) -> None:
    boxes = read_boxes(yolo(tmp_path, a=lines), open_images(pictures))["annotations"]
    assert [(box.get("score"), box.get("track_id")) for box in boxes] == found
    assert all(box["bbox"] == [20, 15, 40, 30] and "segmentation" not in box for box in boxes)


def test_yolo_polygons_of_a_tracker(tmp_path: Path, pictures: Path) -> None:
    corners = ".25 .25 .75 .25 .75 .75 .25 .75"
    boxes = read_boxes(yolo(tmp_path, a=f"0 {corners} .9 12\n0 {corners} 3"), open_images(pictures))["annotations"]
    assert [(box.get("score"), box["track_id"]) for box in boxes] == [(0.9, 12), (None, 3)]
    assert all(box["bbox"] == [20, 15, 40, 30] for box in boxes)


@pytest.mark.parametrize("lines", ["0 .5 .5 .2 .3 .9 1\n0 .1 .1 .9 .1 .9 .9 .1 .9", "0 .9 .5 .9 .3 .5 1"])
def test_yolo_triangles_at_the_lower_edge_are_no_tracks(tmp_path: Path, pictures: Path, lines: str) -> None:
    triangle = read_boxes(yolo(tmp_path, a=lines), open_images(pictures))["annotations"][0]
    assert "segmentation" in triangle and "track_id" not in triangle


def test_yolo_folders_tell_pictures_of_one_name_apart(tmp_path: Path, pictures: Path) -> None:
    for split, side in (("train", 20), ("val", 30)):
        (pictures / split).mkdir()
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(pictures / split / "c.png")
        yolo(tmp_path, c="")  # makes the folder
        (tmp_path / "labels" / split).mkdir()
        (tmp_path / "labels" / split / "c.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "labels" / "c.txt").unlink()
    document = read_boxes(tmp_path / "labels", open_images(pictures))
    assert [(i["file_name"], i["width"]) for i in document["images"]] == [("train/c.png", 20), ("val/c.png", 30)]


def test_what_is_read_has_a_fingerprint(tmp_path: Path, pictures: Path) -> None:
    labels = yolo(tmp_path, a="1 0.5 0.5 0.5 0.5")
    first = boxes_sha256(labels)
    assert boxes_sha256(labels) == first
    for change in ({"a": "0 0.5 0.5 0.5 0.5"}, {"a": "1 0.5 0.5 0.5 0.5", "b": ""}):
        assert boxes_sha256(yolo(tmp_path, **change)) != first
    (labels / "b.txt").unlink()
    assert boxes_sha256(labels) == first
    (labels / "classes.txt").write_text("cat\ndog\n")
    assert boxes_sha256(labels) != first


@pytest.mark.parametrize(
    "text", ["names: [cat, 'big dog']", "names:\n  0: cat\n  1: big dog\nnc: 2", "names:\n- cat\n- big dog\n"]
)
def test_yolo_names(tmp_path: Path, pictures: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    document = read_boxes(yolo(tmp_path, a="1 0.5 0.5 0.5 0.5"), open_images(pictures))
    assert document["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "big dog"}]


@pytest.mark.parametrize(
    "line",
    [
        "cat 0.1 0.1 0.1 0.1",
        "0 0.1 0.1 0.1",
        "0",
        "-1 0.1 0.1 0.1 0.1",
        "1000000000 0.1 0.1 0.1 0.1",
        "0 nan 0.1 0.1 0.1",
    ],
)
def test_bad_yolo_lines(tmp_path: Path, pictures: Path, line: str) -> None:
    labels = yolo(tmp_path, a=f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InputError, match=r"a\.txt:2: "):
        read_boxes(labels, open_images(pictures))


def test_voc_counts_from_one(tmp_path: Path, pictures: Path) -> None:
    voc(tmp_path, "a", [("cat", 1, 1, 80, 60), ("dog", 11, 21, 20, 40)])
    document = read_boxes(voc(tmp_path, "b", [("cat", 5, 5, 5, 5)], size=False), open_images(pictures))
    assert [a["bbox"] for a in document["annotations"]] == [[0, 0, 80, 60], [10, 20, 10, 20], [4, 4, 1, 1]]
    assert [a["category_id"] for a in document["annotations"]] == [1, 2, 1]
    assert [(i["width"], i["height"]) for i in document["images"]] == [(WIDTH, HEIGHT)] * 2


def test_voc_that_counts_from_zero(tmp_path: Path, pictures: Path) -> None:
    document = read_boxes(voc(tmp_path, "a", [("cat", 0, 0, 80, 60), ("cat", 10, 20, 20, 40)]), open_images(pictures))
    assert [a["bbox"] for a in document["annotations"]] == [[0, 0, 80, 60], [10, 20, 10, 20]]


def test_voc_whose_pictures_were_renamed(tmp_path: Path, pictures: Path) -> None:
    (pictures / "a.png").rename(pictures / "000017.png")
    labels = voc(tmp_path, "a", [("cat", 1, 1, 80, 60)], size=False)
    (labels / "a.xml").rename(labels / "000017.xml")
    assert read_boxes(labels, open_images(pictures))["images"] == [
        {"id": 1, "file_name": "000017.png", "width": WIDTH, "height": HEIGHT}
    ]


def test_bad_voc(tmp_path: Path, pictures: Path) -> None:
    labels = voc(tmp_path, "a", [])
    (labels / "b.xml").write_text("<annotation><object>")
    with pytest.raises(InputError, match=r"b\.xml:1: not well-formed XML"):
        read_boxes(labels, open_images(pictures))


def test_coco_and_nothing(tmp_path: Path, pictures: Path) -> None:
    document = {"images": [], "annotations": [], "info": {"year": 2026}}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    source = open_images(pictures)
    assert read_boxes(tmp_path / "boxes.json", source) == document
    with pytest.raises(InputError, match=r"holds no boxes"):
        read_boxes(pictures, source)
