"""What JSON files of several formats have in common, and which of them a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.jsonstream import BARE_LIST, STREAMED, read_document
from mal_trt.formats.reading.coco import number

BROKEN = "broken"  # a file that begins as JSON and is none: which format it has, or had, it does not say


def json_format(path: Path) -> str | None:
    """The format of a JSON file, told by its first keys; None if no reader takes it, BROKEN if it is no JSON."""
    seen: set[str] = set()
    try:
        for entry in read_document(path):
            if entry.key in STREAMED:
                return "coco"
            if entry.key == BARE_LIST:
                if entry.index is not None and (kind := _record_format(entry.value)) is not None:
                    return kind
                continue
            seen.add(entry.key)
            if entry.key == "shapes" and isinstance(entry.value, list):
                return "labelme"
            if entry.key == "_via_img_metadata" or _is_region_list(entry.value):
                return "via"
            if entry.key == "annotations" and "data" in seen:
                return "label-studio"
    except InputError:
        return BROKEN
    return "via" if {"file", "metadata", "project"} <= seen else None


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """(width, height) where a file says both."""
    w, h = number(width), number(height)
    if w is None or h is None or not (0 < w < 1 << 31 and 0 < h < 1 << 31):
        return None
    return int(w), int(h)


def _record_format(record: dict[str, Any]) -> str | None:
    """The format of a list by one of its records; None if this one does not tell."""
    if {"image_id", "bbox"} & record.keys():
        return "coco"
    if _is_region_list(record):
        return "via"
    if isinstance(record.get("data"), dict) and {"annotations", "completions", "predictions"} & record.keys():
        return "label-studio"
    lists = [value for value in record.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if any({"x", "y", "width", "height", "original_width"} & value[0].keys() for value in lists):
        return "label-studio"
    return None


def _is_region_list(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filename"), str) and "regions" in value
