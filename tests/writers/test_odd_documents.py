"""Documents with odd names and records: every mask is written once, and every file can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mal_trt import RunError, convert, label
from mal_trt.labelling.journal import Journal
from mal_trt.writers.formats import FORMATS

Write = Callable[..., Any]
PER_PICTURE = ("yolo", "labelme", "voc", "geojson", "png-instance", "png-semantic")
LONE = "cat\ud83d"


def image(key: int, name: str, size: tuple[int, int] = (20, 10)) -> dict[str, Any]:
    return {"id": key, "file_name": name, "width": size[0], "height": size[1]}


def box(key: Any, picture: int, x: int, category: Any = 1) -> dict[str, Any]:
    square = [[x, 2, x + 4, 2, x + 4, 6, x, 6]]
    return {"id": key, "image_id": picture, "category_id": category, "bbox": [x, 2, 4, 4], "segmentation": square}


def converted(
    folder: Path, format: str, images: list[Any], boxes: list[Any], categories: list[Any] | None = None
) -> Path:
    """The output of a document, which was written in one format."""
    document = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cup"}] if categories is None else categories,
    }
    (folder / "in.json").write_text(json.dumps(document))
    convert(folder / "in.json", folder / "out", format, progress=False)
    return folder / "out"


def objects(out: Path, format: str, stem: str) -> int:
    """How many objects a picture has in an output, or how many classes in png-semantic."""
    if format == "yolo":
        return len((out / f"{stem}.txt").read_text().splitlines())
    if format == "labelme":
        return len(json.loads((out / f"{stem}.json").read_text())["shapes"])
    if format == "geojson":
        return len(json.loads((out / f"{stem}.geojson").read_text())["features"])
    if format == "voc":
        assert (out / "ImageSets/Main/default.txt").read_text().split().count(stem) == 1
        masks = np.asarray(Image.open(out / "SegmentationObject" / f"{stem}.png"))
        found = ElementTree.parse(out / "Annotations" / f"{stem}.xml").findall("object")
        assert len(found) == len(np.unique(masks)) - 1
        return len(found)
    return len(np.unique(np.asarray(Image.open(out / f"{stem}.png")))) - 1


@pytest.mark.parametrize("format", PER_PICTURE)
def test_records_of_one_file_are_one_picture(tmp_path: Path, format: str) -> None:
    """With and without boxes, in any order, and with another picture between them."""
    images = [image(k, name) for k, name in enumerate(["b.jpg", "a.jpg", "c.jpg", "a.jpg", "b.jpg", "a.jpg", "d.jpg"])]
    boxes = [box(1, 1, 1), box(2, 3, 8, 2), box(3, 5, 14, 3), box(4, 4, 1), box(5, 2, 1)]
    categories = [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]
    unsized = {"id": 8, "file_name": "d.jpg"}
    out = converted(tmp_path, format, [unsized, *images, image(9, "d.jpg")], boxes, categories)
    assert [objects(out, format, stem) for stem in "abcd"] == [3, 1, 1, 0]


def test_an_overlay_shows_the_objects_of_all_records_of_its_file(
    tmp_path: Path, tiny_model: Write, data_set: Write
) -> None:
    images, boxes = data_set(pictures=1)
    document = json.loads(boxes.read_text())
    first = document["images"][0]
    document["images"].append({**first, "id": 99})
    document["annotations"][-1]["image_id"] = 99
    twice = tmp_path / "twice.json"
    twice.write_text(json.dumps(document))
    for name, given in (("once", boxes), ("twice", twice)):
        out, options = tmp_path / f"{name}.labels.json", {"device": "cpu", "threads": 1, "progress": False}
        label(images, given, tiny_model(), out, overlay=tmp_path / name, **options)
    one, other = (np.asarray(Image.open(next((tmp_path / name).iterdir()))) for name in ("once", "twice"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("format", PER_PICTURE)
def test_a_record_without_boxes_does_not_count_by_its_size(tmp_path: Path, format: str) -> None:
    images = [image(1, "a.jpg"), image(2, "a.jpg", (5, 5))]
    assert objects(converted(tmp_path, format, images, [box(1, 1, 1), box(2, 1, 8)]), format, "a") >= 1


def test_a_picture_whose_boxes_were_all_skipped_is_not_empty(tmp_path: Path) -> None:
    images = [image(1, "a.jpg"), image(2, "a.jpg"), image(3, "b.jpg")]
    out = converted(tmp_path, "yolo", images, [{**box(1, 1, 1), "segmentation": []}, box(2, 3, 1)])
    assert sorted(p.name for p in out.iterdir()) == ["b.txt", "classes.txt"]


def test_one_picture_of_two_sizes_is_refused_where_it_cannot_be_written(tmp_path: Path) -> None:
    images, boxes = [image(1, "a.jpg"), image(2, "a.jpg", (40, 20))], [box(1, 1, 1), box(2, 2, 8)]
    with pytest.raises(RunError, match=r"a\.jpg is listed with two sizes"):
        converted(tmp_path, "voc", images, boxes)
    assert objects(converted(tmp_path, "yolo", images, boxes), "yolo", "a") == 2


def test_a_resumed_run_writes_the_same_picture(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set()
    document = json.loads(boxes.read_text())
    name = document["images"][0]["file_name"]
    document["images"][2]["file_name"] = name
    boxes.write_text(json.dumps(document))
    options: dict[str, Any] = {"batch": 4, "device": "cpu", "threads": 1, "progress": False, "format": "voc"}
    model = tiny_model()
    label(images, boxes, model, tmp_path / "whole", **options)
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.*")}

    add = Journal.add

    def add_some(journal: Journal, results: Any) -> None:
        add(journal, list(results)[:4])
        raise RunError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add_some)
        with pytest.raises(RunError, match="killed"):
            label(images, boxes, model, tmp_path / "again", **options)
    assert label(images, boxes, model, tmp_path / "again", resume=True, **options).resumed
    assert {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*.*")} == whole


def test_classes_whose_ids_are_whole_floats_keep_their_names(tmp_path: Path) -> None:
    categories = [{"id": 1.0, "name": "cup"}, {"id": 2.0, "name": "saucer"}]
    out = converted(tmp_path, "yolo", [image(1, "a.jpg")], [box(1, 1, 1, 2.0)], categories)
    assert (out / "classes.txt").read_text() == "cup\nsaucer\n"
    assert (out / "a.txt").read_text().startswith("1 ")


def test_a_class_without_a_name_is_called_as_its_id(tmp_path: Path) -> None:
    categories = [{"id": 5, "name": None}, {"id": 6, "name": " "}, {"id": 7}, {"id": 8, "name": "cup"}]
    out = converted(tmp_path, "yolo", [image(1, "a.jpg")], [box(1, 1, 1, 8)], categories)
    assert (out / "classes.txt").read_text() == "5\n6\n7\ncup\n"


@pytest.mark.parametrize("format", FORMATS)
def test_lone_surrogates_are_spelled_out(tmp_path: Path, format: str) -> None:
    categories = [{"id": LONE, "name": LONE}]
    out = converted(tmp_path, format, [image(1, f"{LONE}.jpg")], [box(LONE, 1, 1, LONE)], categories)
    files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
    texts = [p.read_bytes() for p in files if p.suffix != ".png"]
    assert any(b"cat\\ud83d" in text or b"cat\\\\ud83d" in text for text in texts) or format in ("parquet", "voc")


def test_shards_hold_names_with_lone_surrogates(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    from mal_trt.distributed.run import label_shards

    pytest.importorskip("pyarrow")
    images, boxes = data_set()
    document = json.loads(boxes.read_text())
    document["categories"][0]["name"] = LONE
    boxes.write_text(json.dumps(document))
    label_shards(images, boxes, tiny_model(), tmp_path / "shards", device="cpu", threads=1, progress=False)


@pytest.mark.parametrize("format", ["cvat", "voc"])
def test_xml_leaves_out_what_it_cannot_hold(tmp_path: Path, format: str) -> None:
    names = ["a\u0001b\ufffe", "\U0001f600"]
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    out = converted(tmp_path, format, [image(1, "a\u0002.jpg")], [box(1, 1, 1), box(2, 1, 8, 2)], categories)
    (file,) = [out] if out.is_file() else out.rglob("*.xml")
    tree = ElementTree.parse(file).getroot()
    if format == "cvat":
        assert [mask.get("label") for mask in tree.iter("mask")] == ["ab", names[1]]
        assert [found.get("name") for found in tree.iter("image")] == ["a.jpg"]
    else:
        assert [name.text for name in tree.findall("object/name")] == ["ab", names[1]]
        assert tree.findtext("filename") == "a.jpg"


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_are_no_name(tmp_path: Path, format: str) -> None:
    """Each is a picture of its own, though nothing is left of their names."""
    names = ["..", "/", ".", "a/../b.jpg", "a\0.jpg"]
    images = [image(k, name) for k, name in enumerate(names)]
    out = converted(tmp_path, format, images, [box(k, k, 1) for k in range(len(names))])
    if format in PER_PICTURE:
        stems = ["unnamed-1", "unnamed-2", "unnamed-3", "a/b", "a_"]
        assert [objects(out, format, stem) for stem in stems] == [1] * 5
