"""A bare list of COCO results, which knows its pictures and classes by their ids alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from json import dumps
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.formats.jsonstream import BARE_LIST, Entry, read_document
from mal_trt.formats.reading.build import Document
from mal_trt.formats.reading.coco import named

GIVEN = ("images", "categories")


def is_results(path: Path) -> bool:
    """Whether a file is such a list. InputError if it cannot be read."""
    return next(read_document(path)).key == BARE_LIST


def with_pictures(results: Path, image_list: Path) -> Iterator[Entry]:
    """The pieces of the document that results make with the pictures and classes of the COCO file `image_list`, whose
    own annotations count for nothing. Results without an id get 1, 2, ... as pycocotools numbers them."""
    given = set()
    for entry in named(read_document(image_list)):
        if entry.key in GIVEN:
            given.add(entry.key)
            yield entry
    if "images" not in given:
        raise InputError(f"{image_list}: no `images`; expected the COCO file whose pictures the results are of")
    for entry in read_document(results):
        if entry.index is not None and "id" not in entry.value:
            record = {"id": entry.index + 1, **entry.value}
            entry = replace(entry, value=record, text=dumps(record))
        yield replace(entry, key="annotations")


def collected(entries: Iterator[Entry]) -> Document:
    """Pieces of a document, whole."""
    document: Document = {}
    for entry in entries:
        if entry.index is None:
            document[entry.key] = entry.value
        else:
            document[entry.key].append(entry.value)
    return document
