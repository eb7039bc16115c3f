"""Parquet with a row for each picture and its boxes in lists, as data sets on the Hugging Face Hub have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from mal_trt.formats.picture_tables import PictureColumn, given_names, picture_column, row_name
from mal_trt.formats.reading.columns import CLASS, IMAGE, SCORE, SPLIT, plain

# Of a row's boxes: [x, y, width, height], or two corners where the name says so.
BOXES = ("boxes", "bboxes", "bbox", "box", "boxesxywh", "bboxesxywh", "boxesxyxy", "bboxesxyxy")
HOLDERS = ("objects", "annotations", "instances", "labels", "detections")
CLASSES = ("categories", "classes", "labels", "names", "categorynames", "classnames", "categoryids", *CLASS)
SCORES = ("scores", "confidences", *SCORE)
BATCH = 256  # rows held at once
HEADER = ["filename", "class", "score", "imagewidth", "imageheight", "split"]
XYWH, CORNERS, NAMED = ["x", "y", "w", "h"], ["x1", "y1", "x2", "y2"], ["bbox"]


class _Lists(NamedTuple):
    """The columns of a row that are lists. holder: what holds the others, or None. named: a box is a struct that names
    its numbers."""

    holder: str | None
    box: str
    kind: str | None
    score: str | None
    named: bool


def is_nested(schema: Any) -> bool:
    """Whether a row holds the boxes of a picture, not one box."""
    return _lists(schema) is not None


def nested_header(schema: Any) -> list[str]:
    """The names of what `nested_rows` gives."""
    lists = _lists(schema)
    if lists is not None and lists.named:
        return [*HEADER, *NAMED]
    corners = lists is not None and "xyxy" in plain(lists.box)
    return [*HEADER, *(CORNERS if corners else XYWH)]


def nested_rows(table: Any, file: Path) -> Iterator[tuple[int, list[str]]]:
    """A row of text for each box, and one for a picture without any, with the row of the file."""
    schema = table.schema_arrow
    lists, pictures = _lists(schema), picture_column(schema)
    if lists is None:
        return
    single = _singles(schema, pictures)
    wanted = [lists.holder] if lists.holder else [c for c in (lists.box, lists.kind, lists.score) if c]
    row = 0
    for group in range(table.num_row_groups):
        names = given_names(table, pictures, group) if pictures else None
        columns = list(dict.fromkeys([*wanted, *single.values()]))
        for record in table.read_row_group(group, columns=columns).to_pylist():
            name = row_name(file, row, names.pop(0)) if names is not None else _text(record.get(single.get("name", "")))
            ends = [_text(record.get(single.get(key, ""))) for key in ("width", "height", "split")]
            row += 1
            for box, kind, score in _boxes(record, lists):
                yield row, [name, _text(kind), _text(score), *ends, *map(_text, box)]


def _boxes(record: dict[str, Any], lists: _Lists) -> Iterator[tuple[list[Any], Any, Any]]:
    held = record.get(lists.holder) if lists.holder else record
    if isinstance(held, list):  # a list of objects
        rows = [(one.get(lists.box), one.get(lists.kind or ""), one.get(lists.score or "")) for one in held if one]
    else:
        held = held or {}
        boxes = held.get(lists.box) or []
        kinds = (held.get(lists.kind) if lists.kind else None) or repeat(None, len(boxes))
        scores = (held.get(lists.score) if lists.score else None) or repeat(None, len(boxes))
        rows = list(zip(boxes, kinds, scores, strict=False))
    if not rows:
        yield [None] * (1 if lists.named else 4), None, None
    for box, kind, score in rows:
        if lists.named:
            yield [struct_text(box or {})], kind, score
            continue
        values = list(box or ())
        yield (values if len(values) == 4 else [*values, None, None, None, None][:4]), kind, score


def struct_text(box: dict[str, Any]) -> str:
    """A box's numbers by their names, as text; nothing where all are null."""
    return json.dumps(box, default=str) if any(value is not None for value in box.values()) else ""


def _lists(schema: Any) -> _Lists | None:
    import pyarrow as arrow

    def is_list(kind: Any) -> bool:
        tests = (arrow.types.is_list, arrow.types.is_large_list, arrow.types.is_fixed_size_list)
        return any(test(kind) for test in tests)

    def of(fields: dict[str, Any], holder: str | None, many: bool) -> _Lists | None:
        names = {plain(name): name for name in fields}
        for known in BOXES:
            kind = fields.get(names.get(known, ""))
            if kind is None or (many and not (is_list(kind) and _is_box(kind.value_type, is_list))):
                continue
            if not many and not _is_box(kind, is_list):
                continue
            kinds, scores = (next((names[n] for n in known_as if n in names), None) for known_as in (CLASSES, SCORES))
            kinds, scores = (None if c is None or (many and not is_list(fields[c])) else c for c in (kinds, scores))
            named = arrow.types.is_struct(kind.value_type if many else kind)
            return _Lists(holder, names[known], kinds, scores, named)
        return None

    top = {field.name: field.type for field in schema}
    for name, kind in top.items():
        if plain(name) not in HOLDERS:
            continue
        if arrow.types.is_struct(kind) and (found := of({f.name: f.type for f in kind}, name, True)):
            return found
        if is_list(kind) and arrow.types.is_struct(kind.value_type):
            found = of({f.name: f.type for f in kind.value_type}, name, False)
            if found:
                return found
    return of(top, None, True)


def _is_box(kind: Any, is_list: Any) -> bool:
    import pyarrow as arrow

    return bool(is_list(kind) or arrow.types.is_struct(kind))


def _singles(schema: Any, pictures: PictureColumn | None) -> dict[str, str]:
    names = {plain(name): name for name in schema.names if pictures is None or name != pictures.column}
    known = {"name": IMAGE, "width": ("width", "imagewidth"), "height": ("height", "imageheight"), "split": SPLIT}
    found = {key: next((names[n] for n in among if n in names), None) for key, among in known.items()}
    return {key: name for key, name in found.items() if name is not None}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else str(value)
