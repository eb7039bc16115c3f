"""Every format that is read, recognised by its content and read into the document it describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from box_files import BOXES, HEIGHT, WIDTH, WRITERS, csv_pixels, cvat, kitti, label_studio, voc, write
from mal_trt.base.errors import InputError
from mal_trt.cli.options import BoxesFormat
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images
from mal_trt.formats.reading.detect import TITLES

BINARY = ("parquet", "png-instance", "webdataset")
EVERY = [pytest.param(name, writer, id=writer.__name__) for name, writers in WRITERS.items() for writer in writers]


def content(boxes: Boxes, pictures: Path) -> list[tuple[str, str, list[float]]]:
    """(picture, class, XYWH) of each box."""
    document = boxes.document(open_images(pictures))
    names = {c["id"]: c["name"] for c in document["categories"]}
    files = {i["id"]: i["file_name"] for i in document["images"]}
    assert all((i["width"], i["height"]) == (WIDTH, HEIGHT) for i in document["images"])
    return [(files[a["image_id"]], names[a["category_id"]], a["bbox"]) for a in document["annotations"]]


def expected() -> list[tuple[str, str, Any]]:
    return [(n, k, pytest.approx([a, b, c - a, d - b], abs=1e-6)) for n, k, (a, b, c, d) in BOXES]


def test_every_format_has_a_name_a_title_and_a_test() -> None:
    assert set(get_args(BoxesFormat)) == set(TITLES) == set(WRITERS)


@pytest.mark.parametrize(("name", "writer"), EVERY)
def test_recognised_and_read(tmp_path: Path, pictures: Path, name: str, writer: Callable[[Path], Path]) -> None:
    path = writer(tmp_path / "labels")
    found = Boxes(path)
    assert found.title == TITLES[name]
    assert content(found, pictures) == expected()
    assert content(Boxes(path, name), pictures) == expected(), "forced"
    assert content(Boxes(tmp_path / "labels"), pictures) == expected(), "by its folder"
    assert Boxes(path).sha256() == found.sha256()


@pytest.mark.parametrize(("name", "writer"), [one for one in EVERY if one.id != "png_instance"])
def test_pictures_where_the_boxes_say(
    tmp_path: Path, pictures: Path, name: str, writer: Callable[[Path], Path]
) -> None:
    for file in pictures.iterdir():
        (tmp_path / "labels").mkdir(exist_ok=True)
        file.rename(tmp_path / "labels" / file.name)
    path = writer(tmp_path / "labels")
    if name == "labelme":  # whose imagePath is another folder
        for file in path.glob("*.json"):
            file.write_text(file.read_text().replace("..\\\\pictures\\\\", ""))
    boxes = Boxes(path)
    assert Path(boxes.home()).resolve() == (path if name == "webdataset" else tmp_path / "labels").resolve()
    assert content(boxes, boxes.home()) == expected()


def test_byte_order_marks_and_utf_16(tmp_path: Path, pictures: Path) -> None:
    for name, writer in ((n, w) for n, ws in WRITERS.items() for w in ws if n not in BINARY):
        for encoding in ("utf-8-sig", "utf-16"):
            folder = tmp_path / f"{writer.__name__}-{encoding}"
            path = writer(folder)
            for file in folder.iterdir():
                text = file.read_text(encoding="utf-8-sig").replace("\n", "\r\n").replace('encoding="utf-8"', "")
                file.write_bytes(text.encode(encoding))
            assert content(Boxes(path), pictures) == expected(), (name, encoding)


def test_dontcare_is_counted(tmp_path: Path, pictures: Path) -> None:
    boxes = Boxes(kitti(tmp_path / "labels"))
    boxes.document(open_images(pictures))
    assert boxes.notes == ["2 DontCare regions are no objects and were left out"]


def test_a_rectangle_turned_by_half_a_turn_lies_before_its_corner(tmp_path: Path, pictures: Path) -> None:
    plain = label_studio(tmp_path / "l")
    tasks = json.loads(plain.read_text())
    value = tasks[0]["annotations"][0]["result"][0]["value"]
    value |= {"x": value["x"] + value["width"], "y": value["y"] + value["height"], "rotation": 180}
    read, expected = (
        [record["bbox"] for record in Boxes(path).document(open_images(pictures))["annotations"]]
        for path in (write(tmp_path / "t.json", tasks), plain)
    )
    for box, other in zip(read, expected, strict=True):
        assert box == pytest.approx(other)


def test_a_rotated_rectangle_is_refused_by_name(tmp_path: Path, pictures: Path) -> None:
    turned = write(tmp_path / "t.xml", cvat(tmp_path / "c").read_text().replace('xtl="10"', 'xtl="10" rotation="30"'))
    tasks = json.loads(label_studio(tmp_path / "l").read_text())
    tasks[0]["annotations"][0]["result"][0]["value"]["rotation"] = 30
    for path in (turned, write(tmp_path / "t.json", tasks)):
        entries = [
            e for e in Boxes(path).entries(open_images(pictures)) if e.key == "annotations" and e.index is not None
        ]
        assert [e.reason for e in entries] == ["rotated rectangle", None, None]
        assert entries[0].value["bbox"] is None


def test_cvat_tracks(tmp_path: Path, pictures: Path) -> None:
    (pictures / "a.png").rename(pictures / "frame_000003.png")
    box = '<box frame="{}" outside="{}" occluded="0" keyframe="1" xtl="1" ytl="2" xbr="3" ybr="5"/>'
    track = '<track id="0" label="car">' + box.format(3, 0) + box.format(4, 1) + "</track>"
    boxes = Boxes(write(tmp_path / "t.xml", f"<annotations><version>1.1</version>{track}</annotations>"))
    assert content(boxes, pictures) == [("frame_000003.png", "car", [1, 2, 2, 3])]
    assert boxes.notes == ["1 boxes of tracks lie outside their frame and were left out"]


def test_an_unknown_header_is_named(tmp_path: Path, pictures: Path) -> None:
    path = write(tmp_path / "b.csv", "filename,gauche,haut,droite,bas\na.png,1,2,3,4\n")
    with pytest.raises(InputError, match=r"b\.csv:1: no column for the box; the columns are 'filename', 'gauche'"):
        Boxes(path).document(open_images(pictures))


def test_splits_of_a_column_a_folder_a_subset_and_a_list(tmp_path: Path, pictures: Path) -> None:
    def names(boxes: Boxes) -> list[str]:
        return [name for name, _, _ in content(boxes, pictures)]

    lines = csv_pixels(tmp_path / "c").read_text().splitlines()
    rows = [f"{line},{'split' if n == 0 else 'train' if n < 3 else 'valid'}" for n, line in enumerate(lines)]
    table = write(tmp_path / "c" / "boxes.csv", "\n".join(rows))
    assert names(Boxes(table, split="val")) == ["b.png"] and names(Boxes(table, split="train")) == ["a.png"] * 2
    with pytest.raises(InputError, match="no split test; its splits: train, val"):
        Boxes(table, split="test").document(open_images(pictures))
    drawing = cvat(tmp_path / "x")
    write(drawing, drawing.read_text().replace('id="1"', 'id="1" subset="Validation"'))
    assert names(Boxes(drawing, split="val")) == ["b.png"]
    root = tmp_path / "VOC2007"
    voc(root / "Annotations")
    write(root / "ImageSets" / "Main" / "val.txt", "b\n")
    assert names(Boxes(root, split="val")) == names(Boxes(root / "Annotations", split="val")) == ["b.png"]
    for name, split in (("a", "train"), ("b", "valid")):
        images = [{"id": 1, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}]
        records = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
        kinds = [{"id": 1, "name": "cat"}]
        document = {"images": images, "annotations": records, "categories": kinds}
        write(tmp_path / "set" / split / "_annotations.coco.json", document)
    assert [len(Boxes(tmp_path / "set", split=s).document(open_images(pictures))["images"]) for s in (None, "val")] == [
        2,
        1,
    ]


def test_entities_are_never_expanded(tmp_path: Path, pictures: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation><filename>&b;</filename></annotation>'
    leak = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation><filename>&a;</filename></annotation>'
    deep = "<annotation>" + "<a>" * 100_000
    for text, says in ((bomb, "entities"), (leak, "entities"), (deep, "nested")):
        path = write(tmp_path / "x.xml", text)
        with pytest.raises(InputError, match=rf"x\.xml:1: .*{says}"):
            Boxes(path, "voc").document(open_images(pictures))


def test_xml_in_another_encoding(tmp_path: Path, pictures: Path) -> None:
    text = cvat(tmp_path / "x").read_text().replace('"utf-8"', '"GB2312"').replace('"cat"', '"猫"')
    (tmp_path / "x.xml").write_bytes(text.encode("gb2312"))
    assert [kind for _, kind, _ in content(Boxes(tmp_path / "x.xml"), pictures)] == ["猫", "dog", "猫"]


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boxes format pascal: expected one of"):
        Boxes(tmp_path, "pascal")
    (tmp_path / "b.zip").write_bytes(b"PK\3\4 and more")
    with pytest.raises(InputError, match=r"b\.zip: a compressed archive; unpack it first"):
        Boxes(tmp_path / "b.zip")


@pytest.mark.parametrize(("name", "writer"), EVERY)
def test_what_macos_leaves_is_no_label(
    tmp_path: Path, pictures: Path, name: str, writer: Callable[[Path], Path]
) -> None:
    writer(tmp_path / "labels")
    for file in list((tmp_path / "labels").iterdir()):
        for place in (tmp_path / "labels", tmp_path / "labels" / "__MACOSX"):
            place.mkdir(exist_ok=True)
            (place / f"._{file.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X\xb0\2")
    (tmp_path / "labels" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert content(Boxes(tmp_path / "labels"), pictures) == expected()
