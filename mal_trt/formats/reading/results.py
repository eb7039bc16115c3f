"""A bare list of COCO results, which knows its pictures and classes by their ids alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.ids import identity, same_id
from mal_trt.formats.jsonstream import BARE_LIST, Entry, read_document
from mal_trt.formats.reading.build import Document
from mal_trt.formats.reading.coco import named

GIVEN = ("images", "categories")


def is_results(path: Path) -> bool:
    """Whether a file is such a list. InputError if it cannot be read."""
    return next(read_document(path)).key == BARE_LIST


def with_pictures(results: Path, image_list: Path) -> Iterator[Entry]:
    """The pieces of the document that results make with the pictures and classes of the COCO file `image_list`, whose
    own annotations count for nothing.

    Results without an id get 1, 2, ... as pycocotools numbers them. A class that is not among those of the file is
    called by its number.
    """
    given = set()
    classes: Entry | None = None
    for entry in named(read_document(image_list)):
        if entry.key in GIVEN:
            given.add(entry.key)
            if entry.key == "categories" and isinstance(entry.value, list):
                classes = entry
            else:
                yield entry
    if "images" not in given:
        raise InputError(f"{image_list}: no `images`; expected the COCO file whose pictures the results are of")
    met: dict[Any, None] = {}
    for entry in read_document(results):
        if entry.index is not None:
            met[identity(entry.value.get("category_id"))] = None
            if "id" not in entry.value:
                record = {"id": entry.index + 1, **entry.value}
                entry = replace(entry, value=record, text=dumps(record))
        yield replace(entry, key="annotations")
    if classes is not None:
        known = {identity(one.get("id")): None for one in classes.value if isinstance(one, dict)}
        more = [{"id": key, "name": str(key)} for key in met if key is not None and same_id(key, known) not in known]
        yield replace(classes, value=[*classes.value, *more], text=dumps([*classes.value, *more]))


def collected(entries: Iterator[Entry]) -> Document:
    """Pieces of a document, whole."""
    document: Document = {}
    for entry in entries:
        if entry.index is None:
            document[entry.key] = entry.value
        else:
            document[entry.key].append(entry.value)
    return document
