"""Label files that are in order, or nearly, and were once read into the wrong boxes, or ended in a traceback."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from box_files import HEIGHT, WIDTH, cvat, write
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images
from mal_trt.geometry.rle import decode_rle
from mal_trt.writers.label_studio import brush

CORNERS = {"xmin": 10.0, "ymin": 20.0, "xmax": 40.0, "ymax": 50.0}
XYWH = {"height": 30.0, "width": 30.0, "x": 10.0, "y": 20.0}
UNKNOWN = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 30.0}


def read(path: Path, pictures: Path) -> dict[str, Any]:
    return Boxes(path).document(open_images(pictures))


def boxes(path: Path, pictures: Path) -> list[tuple[str, Any]]:
    """(class, XYWH) of each box."""
    document = read(path, pictures)
    names = {c["id"]: c["name"] for c in document["categories"]}
    return [(names[a["category_id"]], a["bbox"]) for a in document["annotations"]]


def struct_column(path: Path, box: dict[str, float]) -> None:
    table = arrow.table({"filename": ["a.png", "b.png"], "label": ["cat", "cat"], "bbox": [box, None]})
    parquet.write_table(table, path.with_suffix(".parquet"))


def struct_in_objects(path: Path, box: dict[str, float]) -> None:
    objects = [[{"category": "cat", "bbox": box}], []]
    parquet.write_table(arrow.table({"filename": ["a.png", "b.png"], "objects": objects}), path.with_suffix(".parquet"))


def structs_in_lists(path: Path, box: dict[str, float]) -> None:
    objects = [{"bbox": [box], "category": ["cat"]}, {"bbox": [], "category": []}]
    parquet.write_table(arrow.table({"filename": ["a.png", "b.png"], "objects": objects}), path.with_suffix(".parquet"))


def json_in_cells(path: Path, box: dict[str, float]) -> None:
    cell = json.dumps(box).replace('"', '""')
    write(path.with_suffix(".csv"), f'filename,class,bbox\na.png,cat,"{cell}"\nb.png,,\n')


def python_in_cells(path: Path, box: dict[str, float]) -> None:
    write(path.with_suffix(".csv"), f'filename,class,bbox\na.png,cat,"[{box}]"\nb.png,,\n')


@pytest.mark.parametrize("writer", [struct_column, struct_in_objects, structs_in_lists, json_in_cells, python_in_cells])
def test_a_box_that_names_its_numbers(
    tmp_path: Path, pictures: Path, writer: Callable[[Path, dict[str, float]], None]
) -> None:
    for place, box in enumerate((CORNERS, XYWH, UNKNOWN)):
        folder = tmp_path / f"{place}"
        folder.mkdir()
        writer(folder / "boxes", box)
        (path,) = folder.iterdir()
        if box is UNKNOWN:
            with pytest.raises(InputError, match=rf"{path.name}:\d: a box with names that are not known"):
                read(path, pictures)
        else:
            assert boxes(path, pictures) == [("cat", [10, 20, 30, 30])]
            assert len(read(path, pictures)["images"]) == 2


def task(*results: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"image": "a.png"}, "annotations": [{"result": list(results)}]}


def result(identity: str, kind: str, x: float = 10, **more: Any) -> dict[str, Any]:
    return {"id": identity, "type": kind, "value": {"x": x, "y": 10, "width": 50, "height": 50, **more}}


@pytest.mark.parametrize("backwards", [False, True])
def test_label_studio_results_of_one_region_are_one_box(tmp_path: Path, pictures: Path, backwards: bool) -> None:
    results = [
        result("r1", "rectanglelabels", rectanglelabels=["cup"]),
        result("r1", "choices", choices=["hidden"]),
        result("r1", "textarea", text=["hello"]),
        result("r2", "rectangle", 20),
        result("r2", "labels", 20, labels=["cat"]),
    ]
    found = boxes(write(tmp_path / "t.json", [task(*results[:: -1 if backwards else 1])]), pictures)
    assert sorted(kind for kind, _ in found) == ["cat", "cup"]


def test_label_studio_boxes_that_share_an_id_by_mistake_stay_apart(tmp_path: Path, pictures: Path) -> None:
    results = [result("r1", "rectanglelabels", x, rectanglelabels=["cup"]) for x in (10, 20)]
    assert len(boxes(write(tmp_path / "t.json", [task(*results)]), pictures)) == 2


def test_label_studio_json_min_whose_first_task_has_no_label(tmp_path: Path, pictures: Path) -> None:
    region = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cup"], "original_width": WIDTH}
    tasks = [{"id": 1, "image": "b.png"}, {"id": 2, "image": "a.png", "label": [region]}]
    assert [kind for kind, _ in boxes(write(tmp_path / "t.json", tasks), pictures)] == ["cup"]


def test_a_blank_class_name_keeps_its_place(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "labels"
    write(folder / "a.txt", "1 .5 .5 .5 .5\n2 .5 .5 .5 .5\n")
    write(folder / "classes.txt", "person\n\ncat\n\n")
    assert [kind for kind, _ in boxes(folder, pictures)] == ["1", "cat"]
    (folder / "classes.txt").unlink()
    for names, says in (("null", ["1", "2"]), ('[person, "", cat]', ["1", "cat"]), ("{2: cat}", ["1", "cat"])):
        write(folder / "data.yaml", f"names: {names}\n")
        assert [kind for kind, _ in boxes(folder, pictures)] == says


def test_a_score_that_is_not_finite_is_none(tmp_path: Path, pictures: Path) -> None:
    table = write(tmp_path / "b.csv", "filename,x,y,w,h,score\na.png,1,2,3,4,nan\na.png,1,2,3,4,inf\n")
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [3, 4]], "score": math.nan}
    drawn = write(tmp_path / "a.json", {"imagePath": "a.png", "shapes": [shape]})
    shard = webdataset(tmp_path / "s.tar", {"boxes": [[1, 2, 3, 4]], "scores": [math.inf]})
    for path in (table, drawn):
        assert all("score" not in record for record in read(path, pictures)["annotations"])
    assert all("score" not in record for record in read(shard, shard)["annotations"])


def webdataset(path: Path, content: Any) -> Path:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(picture, "PNG")
    with tarfile.open(path, "w") as archive:
        for name, data in (("a.png", picture.getvalue()), ("a.json", json.dumps(content).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_webdataset_whose_size_is_no_number_asks_the_picture(tmp_path: Path) -> None:
    shard = webdataset(tmp_path / "s.tar", {"boxes": [[1, 2, 3, 4]], "width": math.nan, "height": math.inf})
    (image,) = read(shard, shard)["images"]
    assert (image["width"], image["height"]) == (WIDTH, HEIGHT)


def test_coco_files_whose_categories_are_no_categories(tmp_path: Path, pictures: Path) -> None:
    for name in ("a", "b"):
        images = [{"id": 1, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}]
        records = [
            {"id": place, "image_id": 1, "category_id": kind, "bbox": [1, 2, 3, 4]}
            for place, kind in enumerate((7, [7]))
        ]
        document = {"images": images, "annotations": records, "categories": ["person", {"id": [7], "name": "cat"}]}
        write(tmp_path / "set" / f"{name}.json", document)
    document = read(tmp_path / "set", pictures)
    assert [c["name"] for c in document["categories"]] == ["7"]
    assert [a["category_id"] for a in document["annotations"]] == [1, [7]] * 2


@pytest.mark.parametrize("runs", ["4000000000000000000", "9223372036854775807,9223372036854775807,2"])
def test_a_cvat_mask_of_absurd_size_is_named(tmp_path: Path, pictures: Path, runs: str) -> None:
    side = 2_000_000_000 if "," not in runs else 0
    mask = f'<mask label="cup" rle="{runs}" left="0" top="0" width="{side}" height="{side}"/>'
    image = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">{mask}</image>'
    path = write(tmp_path / "c.xml", f"<annotations>{image}</annotations>")
    with pytest.raises(InputError, match=r"c\.xml: not a CVAT annotation \(a mask "):
        read(path, pictures)


def test_broken_xml_is_called_xml(tmp_path: Path, pictures: Path) -> None:
    whole = cvat(tmp_path / "c").read_text()
    for text, says in (
        ("<annotation>\n<name>cat & dog</name></annotation>", r":2: not well-formed XML"),
        (whole[: len(whole) // 2], r":\d+: not well-formed XML"),
        ("<annotation", r":1: not well-formed XML"),
        ("<html></html>", r": XML with the root <html>; expected <annotation>"),
    ):
        path = write(tmp_path / "x.xml", text)
        with pytest.raises(InputError, match=rf"x\.xml{says}"):
            read(path, pictures)


def test_a_gzip_file_with_a_name_in_it(tmp_path: Path) -> None:
    (tmp_path / "b.json.gz").write_bytes(b"\x1f\x8b\x08\x08and more")
    with pytest.raises(InputError, match="a compressed archive"):
        Boxes(tmp_path / "b.json.gz")


def test_a_row_with_too_many_cells_is_named(tmp_path: Path, pictures: Path) -> None:
    header = "filename,class,xmin,ymin,xmax,ymax\n"
    path = write(tmp_path / "b.csv", f"{header}a.png,cat,1,2,3,4\na.png,cat,1,000,20,30,40\n")
    with pytest.raises(InputError, match=r"b\.csv:3: 7 cells; the header has 6 columns"):
        read(path, pictures)
    assert boxes(write(path, f"{header}a.png,cat,1,2,3,4,\n"), pictures) == [("cat", [1, 2, 2, 2])]


def test_labelme_polygons_of_one_group_are_one_object(tmp_path: Path, pictures: Path) -> None:
    left, right = [[10, 20], [19, 20], [19, 29], [10, 29]], [[40, 20], [49, 20], [49, 39], [40, 39]]
    shapes = [
        {"label": "cat", "points": left, "shape_type": "polygon", "group_id": 4},
        {"label": "dog", "points": left, "shape_type": "polygon", "group_id": 4},
        {"label": "cat", "points": [[0, 0], [5, 5]], "shape_type": "rectangle", "group_id": 4},
        {"label": "cat", "points": right, "shape_type": "polygon", "group_id": 4},
        {"label": "cat", "points": right, "shape_type": "polygon", "group_id": None},
    ]
    content = {"shapes": shapes, "imagePath": "a.png", "imageHeight": 60, "imageWidth": 80}
    found = read(write(tmp_path / "a.json", content), pictures)["annotations"]
    assert [box["bbox"] for box in found] == [[10, 20, 39, 19], [10, 20, 9, 9], [0, 0, 5, 5], [40, 20, 9, 19]]
    whole = decode_rle(found[0]["segmentation"]).full(60, 80)
    assert whole[20:30, 10:20].all() and whole[20:40, 40:50].all() and whole.sum() == 100 + 200


def brushes(folder: Path, *packed: Any) -> Path:
    regions = [
        {"id": str(n), "type": "brushlabels", "original_width": 80, "original_height": 60}
        | {"score": 0.5, "value": {"format": "rle", "rle": rle, "brushlabels": ["cat"]}}
        for n, rle in enumerate(packed)
    ]
    return write(folder / "tasks.json", [{"data": {"image": "a.png"}, "annotations": [{"result": regions}]}])


def test_label_studio_brushes_are_masks(tmp_path: Path, pictures: Path) -> None:
    mask = np.zeros((60, 80), bool)
    mask[20:50, 10:30], mask[30, 15] = True, False
    (found,) = read(brushes(tmp_path, brush(mask)), pictures)["annotations"]
    assert found["bbox"] == [10, 20, 20, 30] and found["score"] == 0.5
    assert np.array_equal(decode_rle(found["segmentation"]).full(60, 80), mask)


def test_label_studio_brushes_with_single_values(tmp_path: Path, pictures: Path) -> None:
    """As Label Studio packs the rim of a stroke: values one by one, then a run."""
    total = 80 * 60 * 4
    first = f"{0:01b}{0:02b}{7:03b}" + "".join(f"{value:08b}" for value in (1, 2, 3, 255, 1, 2, 3, 127))
    bits = f"{total:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}{first}{1:01b}{3:02b}{total - 9:016b}{0:08b}"
    packed = [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]
    (found,) = read(brushes(tmp_path, packed), pictures)["annotations"]
    assert found["bbox"] == [0, 0, 1, 1]


@pytest.mark.parametrize("packed", [[], [1, 2, 3], [0, 0, 75, 0, 57], [300] * 9, "text", None, [0.5] * 9])
def test_label_studio_brushes_that_cannot_be_read(tmp_path: Path, pictures: Path, packed: Any) -> None:
    boxes = Boxes(brushes(tmp_path, packed))
    reasons = [entry.reason for entry in boxes.entries(open_images(pictures)) if entry.key == "annotations"]
    assert reasons[0] is None and "a brush that cannot be read" in str(reasons[1])


def test_a_column_of_counts_that_is_no_mask(tmp_path: Path, pictures: Path) -> None:
    path = write(tmp_path / "b.csv", "filename,class,x,y,w,h,counts\na.png,cat,10,20,30,30,3\n")
    (found,) = read(path, pictures)["annotations"]
    assert "segmentation" not in found


def test_lvis_says_where_coco_has_its_pictures(tmp_path: Path, pictures: Path) -> None:
    image = {"id": 7, "width": WIDTH, "height": HEIGHT, "coco_url": "http://images.cocodataset.org/val2017/a.png"}
    record = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40]}
    document = {"images": [image], "annotations": [record], "categories": [{"id": 1, "name": "cat"}]}
    file = write(tmp_path / "lvis.json", document)
    assert read(file, pictures)["images"] == [{**image, "file_name": "val2017/a.png"}]
    first = next(e for e in Boxes(file).entries(open_images(pictures)) if e.index == 0)
    assert first.value["file_name"] == json.loads(first.text)["file_name"] == "val2017/a.png"
    write(tmp_path / "two" / "a.json", document), write(tmp_path / "two" / "b.json", document)
    assert [i["file_name"] for i in read(tmp_path / "two", pictures)["images"]] == ["val2017/a.png"] * 2


@pytest.mark.parametrize(("value", "name"), [("1", "dog"), ("1,0", "dog"), ("0", "cat")])
def test_via_3_says_options_by_their_numbers(tmp_path: Path, pictures: Path, value: str, name: str) -> None:
    project = {
        "project": {},
        "file": {"1": {"fname": "a.png"}},
        "view": {"1": {"fid_list": ["1"]}},
        "attribute": {
            "5": {"aname": "kind", "options": {"0": "cat", "1": "dog"}},
            "6": {"aname": "note", "options": {}},
        },
        "metadata": {"1_x": {"vid": "1", "xy": [2, 1, 2, 30, 40], "av": {"5": value, "6": "old, brown"}}},
    }
    assert boxes(write(tmp_path / "via.json", project), pictures) == [(name, [1, 2, 30, 40])]
