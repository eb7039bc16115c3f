"""Masks that are drawn as pictures: VOC's SegmentationObject, png-instance and LabelMe's."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from box_files import HEIGHT, WIDTH, labelme, png_instance, voc, write
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images
from mal_trt.formats.reading.voc import VOID_COLOUR
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle
from mal_trt.labelling.convert import convert
from mal_trt.writers.png import palette

Boxed = tuple[int, int, int, int]
CAT, DOG = (10, 20, 30, 50), (0, 0, 80, 60)


def masks(boxes: Boxes, pictures: Path) -> list[np.ndarray | None]:
    records = boxes.document(open_images(pictures))["annotations"]
    return [decode_rle(r["segmentation"]).full(HEIGHT, WIDTH) if "segmentation" in r else None for r in records]


def block(*boxes: Boxed) -> np.ndarray:
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in boxes:
        drawn[y0:y1, x0:x1] = True
    return drawn


@pytest.mark.parametrize("format", ["voc", "png-instance"])
def test_what_convert_writes_comes_back(tmp_path: Path, format: str) -> None:
    """Boxes inside boxes, one that is all hidden, and one without a mask."""
    shapes = [DOG, CAT, (12, 22, 20, 30), (40, 10, 60, 30), (40, 10, 60, 30)]
    records: list[dict[str, Any]] = [
        {
            **{"id": n, "image_id": 1, "category_id": 1, "bbox": [a, b, c - a, d - b]},
            "segmentation": encode_rle(LocalMask(a, b, np.ones((d - b, c - a), bool)), HEIGHT, WIDTH),
        }
        for n, (a, b, c, d) in enumerate(shapes)
    ]
    images = [{"id": 1, "file_name": "deep/a.png", "width": WIDTH, "height": HEIGHT}]
    document = {"images": images, "annotations": records, "categories": [{"id": 1, "name": "cat"}]}
    convert(write(tmp_path / "in.json", document), tmp_path / "out", format, progress=False)
    found = masks(Boxes(tmp_path / "out"), tmp_path)
    expected = [block(DOG) & ~block(CAT, shapes[3]), block(CAT) & ~block(shapes[2]), block(shapes[2])]
    hidden = [one for one in found[3:] if one is not None]
    for one, other in zip(found, expected, strict=False):
        np.testing.assert_array_equal(one, other)
    assert len(found) == 5 and len(hidden) == 1
    np.testing.assert_array_equal(hidden[0], block(shapes[3]))
    again = convert(tmp_path / "out", tmp_path / "again.json", "coco", progress=False)
    assert (again.total, again.written) == (5, 4)


def drawn_voc(folder: Path, image: Image.Image) -> Boxes:
    """The VOC data set of `box_files` with a picture of masks for a.png."""
    voc(folder / "Annotations")
    (folder / "SegmentationObject").mkdir()
    image.save(folder / "SegmentationObject" / "a.png")
    return Boxes(folder)


def test_voc_masks_go_by_overlap_where_numbers_do_not_fit(tmp_path: Path, pictures: Path) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[1:59, 1:79] = 1  # the second object's
    values[21:49, 11:29] = 255
    values[22:48, 12:28] = 2
    values[0, 0] = 9
    image = Image.fromarray(values)
    image.putpalette(palette())
    boxes = drawn_voc(tmp_path / "palette", image)
    cat, dog, other = masks(boxes, pictures)
    np.testing.assert_array_equal(cat, values == 2)
    np.testing.assert_array_equal(dog, values == 1)
    assert other is None and boxes.notes == ["1 drawn masks fit the box of no object and were left out"]
    colours = np.array(palette(), np.uint8).reshape(-1, 3)[values]
    assert tuple(colours[21, 11]) == VOID_COLOUR
    coloured = masks(drawn_voc(tmp_path / "rgb", Image.fromarray(colours)), pictures)
    np.testing.assert_array_equal(coloured[0], cat)
    np.testing.assert_array_equal(coloured[1], dog)


def test_pictures_of_masks_that_cannot_be_used(tmp_path: Path, pictures: Path) -> None:
    other = drawn_voc(tmp_path / "size", Image.new("L", (WIDTH, HEIGHT + 1), 1))
    assert masks(other, pictures) == [None] * 3 and "differ in size" in other.notes[0]
    broken = drawn_voc(tmp_path / "broken", Image.new("L", (WIDTH, HEIGHT), 1))
    (tmp_path / "broken" / "SegmentationObject" / "a.png").write_bytes(b"no picture")
    assert masks(broken, pictures) == [None] * 3 and "cannot be read" in broken.notes[0]


def test_png_instance_that_is_wrong_is_named(tmp_path: Path, pictures: Path) -> None:
    table = png_instance(tmp_path / "p")
    text = table.read_text()
    with pytest.raises(InputError, match=r"instances\.csv: does not say where its pictures are; give --images"):
        Boxes(table).home()
    for old, new, says in (
        ("a-masks", "../a-masks", "leads out of its folder"),
        ("b-masks", "c-masks", r"instances\.csv:4: c-masks.png: .*"),
        ("png,1", "png,x", r"instances\.csv:2: not a row"),
    ):
        table.write_text(text.replace(old, new, 1))
        with pytest.raises(InputError, match=says):
            Boxes(table).document(open_images(pictures))


def labelme_mask(folder: Path, mask: np.ndarray, points: list[list[float]], **more: Any) -> Boxes:
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(stream, "PNG")
    file = labelme(folder) / "a.json"
    content = json.loads(file.read_text())
    packed = base64.b64encode(stream.getvalue()).decode()
    shape = {"label": "cat", "points": points, "shape_type": "mask", "mask": packed, **more}
    square = {"label": "cat", "points": [[1, 1], [4, 1], [4, 4], [1, 4]], "shape_type": "polygon", **more}
    content["shapes"] = [{**shape, **more}, square] if more else [shape]
    file.write_text(json.dumps(content))
    return Boxes(file)


def test_labelme_masks(tmp_path: Path, pictures: Path) -> None:
    mask = np.ones((11, 21), bool)
    mask[3:5, 4:9] = mask[-1] = False
    canvas = block((10, 30, 31, 41))
    canvas[30:41, 10:31] = mask
    boxes = labelme_mask(tmp_path / "one", mask, [[30.0, 40.0], [10.0, 30.0]])
    (record,) = boxes.document(open_images(pictures))["annotations"]
    assert record["bbox"] == [10, 30, 21, 10]
    np.testing.assert_array_equal(masks(boxes, pictures)[0], canvas)
    (joined,) = masks(labelme_mask(tmp_path / "two", mask, [[10, 30], [30, 40]], group_id=3), pictures)
    np.testing.assert_array_equal(joined, canvas | block((1, 1, 5, 5)))
    beyond = labelme_mask(tmp_path / "beyond", np.ones((11, 21), bool), [[-5, -5], [15, 5]])
    np.testing.assert_array_equal(masks(beyond, pictures)[0], block((0, 0, 16, 6)))
    wrong = labelme_mask(tmp_path / "wrong", mask, [[10, 30], [40, 40]])
    assert masks(wrong, pictures) == [None] and wrong.notes == ["1 masks cannot be read and count as boxes"]
