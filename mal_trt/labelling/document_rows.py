"""A document's records as rows of the journal: what each says of itself, or why it cannot be labelled."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np

from mal_trt.formats.ids import identity, storable
from mal_trt.formats.jsonstream import Entry
from mal_trt.formats.reading.coco import number
from mal_trt.formats.segmentations import check_polygons, to_rle
from mal_trt.labelling.journal import Result

NO_BBOX = "bbox missing"
NOT_FOUR = "bbox is not four numbers"
NOT_FINITE = "bbox has a NaN or infinite value"
NO_SIZE = "bbox has zero or negative width or height"
OUTSIDE = "bbox has no pixel inside the picture"
UNKNOWN_IMAGE = "unknown image_id"
UNKNOWN_CATEGORY = "unknown category_id"
DUPLICATE = "duplicate id"
NO_FILE_NAME = "image record without file_name"


def parse_bbox(value: Any) -> tuple[float, float, float, float] | str:
    """x, y, width, height in pixels of a record's `bbox`, numbers in strings too, or why it cannot be used."""
    if value is None:
        return NO_BBOX
    if not isinstance(value, list) or len(value) != 4:
        return NOT_FOUR
    numbers = value
    if not all(type(v) is float for v in value):  # as most are
        numbers = [v for v in map(number, value) if v is not None]
    if len(numbers) < 4:
        return NOT_FOUR
    x, y, w, h = numbers
    if not all(map(math.isfinite, numbers)):
        return NOT_FINITE
    return (x, y, w, h) if w > 0 and h > 0 else NO_SIZE


def image_row(entry: Entry) -> tuple[Any, ...]:
    """The row of an image record."""
    record = entry.value
    name = record.get("file_name")
    width, height = side(record.get("width")), side(record.get("height"))
    if width is None or height is None:
        width = height = None
    named = isinstance(name, str) and bool(name)
    return (
        entry.index,
        identity(record.get("id")),
        storable(name) if named else None,
        width,
        height,
        None if named else NO_FILE_NAME,
        None,
        entry.text,
        None,
    )


def annotation_row(entry: Entry) -> tuple[Any, ...]:
    """The row of an annotation or result."""
    record, text = entry.value, entry.text
    box = parse_bbox(record.get("bbox"))
    x, y, w, h = (None,) * 4 if isinstance(box, str) else box
    if not isinstance(box, str) and any(isinstance(v, str) for v in record["bbox"]):
        text = json.dumps({**record, "bbox": list(box)})  # what reads the output expects numbers
    ids = (identity(record.get(key)) for key in ("id", "image_id", "category_id"))
    return (entry.index, *ids, x, y, w, h, text)


def boxed(entry: Entry) -> Entry:
    """A record of labels; where it has a mask and no box, with the box around the mask, if that can be read."""
    record = entry.value
    if entry.index is None or entry.key == "images" or entry.reason or record.get("bbox") is not None:
        return entry
    try:
        box = _around(record.get("segmentation"))
    except ValueError:  # what is wrong with it, who reads the mask says
        return entry
    record = {**record, "bbox": box}
    return replace(entry, value=record, text=json.dumps(record))


def _around(segmentation: Any) -> list[float]:
    """XYWH, picture pixels, of a segmentation; ValueError if it is none."""
    from pycocotools import mask as coco

    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not (isinstance(size, list) and len(size) == 2 and all(side(length) for length in size)):
            raise ValueError("no size")
        rle = to_rle(segmentation, *size)
        return [float(v) for v in coco.toBbox({**rle, "counts": rle["counts"].encode("ascii")})]
    if not isinstance(segmentation, list):
        raise ValueError("neither polygons nor RLE")
    check_polygons(segmentation)
    xs, ys = (np.concatenate([polygon[place::2] for polygon in segmentation]) for place in (0, 1))
    return [float(v) for v in (xs.min(), ys.min(), np.ptp(xs), np.ptp(ys))]


def bad_box(entry: Entry) -> Result | None:
    """Why an annotation is no box, as its result; None if it is one."""
    box = parse_bbox(entry.value.get("bbox"))
    reason = entry.reason or (box if isinstance(box, str) else None)
    return Result(entry.index or 0, None, None, reason) if reason else None


def side(value: Any) -> int | None:
    """A picture's width or height, or None where the document has nothing usable."""
    found = number(value)
    return int(found) if found is not None and 0 < found < 1 << 31 and found == int(found) else None
