"""COCO documents as others write them: numbers as strings, ids of another type, a file for each split."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.ids import identity, same_id
from mal_trt.formats.jsonstream import STREAMED, Entry
from mal_trt.formats.picture_names import clean_name
from mal_trt.formats.reading.build import Document, ReadResult
from mal_trt.formats.reading.text import read_bytes


def read_coco(path: Path) -> Document:
    """A COCO document as it stands in its file, its numbers numbers and its ids those they refer to; InputError if it
    is none."""
    content = load_json(path)
    for key in STREAMED:
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{path}: not a COCO document; it needs the lists `images` and `annotations`, of objects")
    return _plain(dict(content))


def merged(files: Sequence[Path]) -> ReadResult:
    """One document of several, such as those of a data set's splits, pictures and boxes with ids of their own. Pictures
    are called by their paths from the folder that holds all files."""
    home = os.path.commonpath([file.parent for file in files])
    whole: Document = {"images": [], "annotations": [], "categories": []}
    kinds: dict[str, int] = {}
    for file in files:
        document = read_coco(file)
        names = _names(document.get("categories"))
        pictures: dict[Any, int] = {}
        for image in document["images"]:
            number = len(whole["images"]) + 1
            if (key := identity(image.get("id"))) is not None:
                pictures.setdefault(key, number)
            name = image.get("file_name")
            if isinstance(name, str):
                image["file_name"] = os.path.relpath(os.path.join(file.parent, name), home).replace(os.sep, "/")
            whole["images"].append({**image, "id": number})
        for record in document["annotations"]:
            ids: Document = {
                "id": len(whole["annotations"]) + 1,
                "image_id": pictures.get(identity(record.get("image_id"))),
            }
            category = identity(record.get("category_id"))
            if category is not None:  # else it stays the fault that it is in a file alone
                ids["category_id"] = kinds.setdefault(names.get(category, str(category)), len(kinds) + 1)
            whole["annotations"].append({**record, **ids})
    whole["categories"] = [{"id": number, "name": name} for name, number in kinds.items()]
    return ReadResult(whole)


def named(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The pieces of a document, each image record with its `file_name`."""
    for entry in entries:
        if entry.key == "images" and entry.index is not None and (record := _named(entry.value)) is not entry.value:
            entry = replace(entry, value=record, text=json.dumps(record))
        yield entry


def load_json(path: Path) -> Any:
    """A JSON file in UTF-8 or UTF-16; InputError names what is wrong and where."""
    try:
        return json.loads(read_bytes(path))
    except RecursionError:
        raise InputError(f"{path}: not JSON (nested too deeply)") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def number(value: Any) -> float | None:
    """A number, also one in a string; None for anything else. May be infinite or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def finite(value: Any) -> float | None:
    """A number that is finite, also one in a string; None for anything else."""
    found = number(value)
    return None if found is None or not math.isfinite(found) else found


def _plain(document: Document) -> Document:
    images = {identity(image.get("id")) for image in document["images"]}
    kinds = _names(document.get("categories"))
    document["images"] = [_named(image) for image in document["images"]]
    for image in document["images"]:
        for side in ("width", "height"):
            value = number(image.get(side)) if isinstance(image.get(side), str) else None
            if value is not None and math.isfinite(value):
                image[side] = int(value)
    for record in document["annotations"]:
        bbox = record.get("bbox")
        if isinstance(bbox, list) and any(isinstance(v, str) for v in bbox):
            values = [number(v) for v in bbox]
            record["bbox"] = bbox if None in values else values
        for key, known in (("image_id", images), ("category_id", kinds)):
            if key in record:
                record[key] = same_id(record[key], known)
    return document


def _named(image: Document) -> Document:
    """An image record with its `file_name`: LVIS says where COCO has the picture, and nothing else."""
    url = image.get("coco_url")
    return {**image, "file_name": clean_name(url)} if isinstance(url, str) and not image.get("file_name") else image


def _names(categories: Any) -> dict[Any, str]:
    """Names of categories by their ids; what is no object among them has neither."""
    objects = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    return {identity(c.get("id")): str(c.get("name", c.get("id"))) for c in objects}
