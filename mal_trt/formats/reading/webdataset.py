"""WebDataset: tar files whose members `key.jpg` and `key.json` are a picture and its boxes."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.files import open_regular
from mal_trt.base.places import Copies
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.formats.picture_tars import shard_name, tar_index
from mal_trt.formats.reading.build import Builder, ReadResult
from mal_trt.formats.reading.coco import finite, number
from mal_trt.formats.reading.json_kinds import size_of

LOOKED_AT = 64  # members
NO_BOXES = "pictures without a .json beside them left out"
NO_PICTURE = ".json without a picture left out"
_EXPECTED = '{"boxes": [[x, y, width, height], ...], "labels": [...]} or {"annotations": [{"bbox": [...]}, ...]}'


def read_webdataset(places: Sequence[str], images: ImageSource) -> ReadResult:
    """The document of tar files. Boxes are XYWH pixels; their classes are names, or numbers that become names."""
    build, copies = Builder(images), Copies()
    for place in places:
        for member, name, text in _samples(place, copies, build):
            where = f"{place}: {member}"
            content = _object(text, where)
            size = size_of(content.get("width"), content.get("height"))
            picture = build.picture(build.locate(shard_name(place, name, len(places) > 1)), size)
            for bbox, kind, more in _boxes(content, where):
                build.box(picture, kind, bbox, **more)
    return build.finish()


def holds_boxes(file: Path) -> bool:
    """Whether a tar file on the disk has boxes in it, going by its first members."""
    try:
        with open_regular(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            return any(member.name.lower().endswith(".json") for member in islice(archive, LOOKED_AT))
    except (tarfile.TarError, OSError, EOFError):
        return False


def webdataset_sha256(places: Sequence[str]) -> str:
    """SHA-256, hexadecimal, of the boxes of tar files and the names of all members; pictures are not read."""
    digest, copies = hashlib.sha256(), Copies()
    for place in places:
        digest.update(f"{PurePosixPath(place).name}\n".encode())
        index = tar_index(place, copies)
        with copies.open(place) as file:
            for name, (offset, size) in index.items():
                digest.update(f"{name} {size}\n".encode())
                if name.lower().endswith(".json"):
                    file.seek(offset)
                    digest.update(file.read(size))
    return digest.hexdigest()


def _samples(place: str, copies: Copies, build: Builder) -> Iterator[tuple[str, str, bytes]]:
    """For each key its .json's name, its picture's name and the text of the .json, in the order of the file."""
    index = tar_index(place, copies)
    pictures: dict[str, str] = {}
    texts: dict[str, str] = {}
    for name in index:
        folder, _, base = name.rpartition("/")
        key, _, ending = base.partition(".")
        key = f"{folder}/{key}"
        if ending.lower() == "json":
            texts[key] = name
        elif has_picture_ending(name):
            pictures.setdefault(key, name)
    if not texts:
        raise InputError(f"{place}: holds no boxes: no member is called key.json; expected {_EXPECTED}")
    if left := len(pictures.keys() - texts.keys()):
        build.aside[NO_BOXES] += left
    if left := len(texts.keys() - pictures.keys()):
        build.aside[NO_PICTURE] += left
    with copies.open(place) as file:
        for key, picture in pictures.items():
            if key in texts:
                offset, size = index[texts[key]]
                file.seek(offset)
                yield texts[key], picture, file.read(size)


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if isinstance(content, list):
        return {"annotations": content}
    if not isinstance(content, dict):
        raise InputError(f"{where}: neither an object nor a list; expected {_EXPECTED}")
    return content


def _boxes(content: dict[str, Any], where: str) -> Iterator[tuple[list[float], str, dict[str, Any]]]:
    for name in ("annotations", "objects", "instances"):
        if isinstance(records := content.get(name), list):
            for place, record in enumerate(records):
                bbox = record.get("bbox") if isinstance(record, dict) else None
                kind = next((record[k] for k in ("category", "label", "class", "category_id") if k in record), "object")
                yield _numbers(bbox, f"{where}: record {place}"), str(kind), _score(record.get("score"))
            return
    listed = next((key for key in ("boxes", "bboxes", "bbox") if key in content), None)
    if listed is None:
        raise InputError(f"{where}: no boxes in it; expected {_EXPECTED}")
    boxes = content[listed] if isinstance(content[listed], list) else []
    if boxes and not isinstance(boxes[0], list):
        boxes = [boxes]
    kinds = next((content[k] for k in ("labels", "categories", "classes", "category_ids") if k in content), None)
    scores = content.get("scores")
    for values in (kinds, scores):
        if values is not None and (not isinstance(values, list) or len(values) != len(boxes)):
            raise InputError(f"{where}: {len(boxes)} boxes, and not as many classes or scores")
    for place, bbox in enumerate(boxes):
        kind = "object" if kinds is None else str(kinds[place])
        more = {} if scores is None else _score(scores[place])
        yield _numbers(bbox, f"{where}: box {place}"), kind, more


def _numbers(bbox: Any, where: str) -> list[float]:
    values = [number(v) for v in bbox] if isinstance(bbox, list) else []
    found = [v for v in values if v is not None]
    if len(found) != 4 or len(values) != 4:
        raise InputError(f"{where}: the box is not four numbers; expected [x, y, width, height]")
    return found


def _score(value: Any) -> dict[str, Any]:
    found = finite(value)
    return {} if found is None else {"score": found}
