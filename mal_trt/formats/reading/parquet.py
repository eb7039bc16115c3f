"""Parquet with the columns of a CSV of boxes, or with a row for each picture (`nested`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.places import Copies
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_tables import PictureColumn, given_names, opened_parquet, picture_column, row_name
from mal_trt.formats.reading.build import ReadResult
from mal_trt.formats.reading.columns import find_columns
from mal_trt.formats.reading.nested import is_nested, nested_header, nested_rows, struct_text
from mal_trt.formats.reading.table import Table, read_tables

MAGIC = b"PAR1"
BATCH = 4096  # rows held at once


def read_parquet(files: list[Path], images: ImageSource, split: str | None = None) -> ReadResult:
    """The document of Parquet files; a box may be one column of lists or structs, or there may be a row for each
    picture with all of its boxes."""
    return read_tables([_table(file) for file in files], images, split)


def _table(file: Path) -> Table:
    with opened_parquet(file, Copies()) as opened:
        schema = opened.schema_arrow
        if is_nested(schema):
            return Table(file, find_columns(nested_header(schema), str(file)), list(nested_rows(opened, file)))
        pictures = picture_column(schema)
        columns = find_columns(schema.names, str(file))
        wanted = [*columns.box, columns.image, columns.kind, columns.score, columns.split, columns.mask]
        wanted += columns.size or ()
        kept = [name for place, name in enumerate(schema.names) if place in wanted]
        columns = find_columns(kept, str(file))
        if pictures is not None and kept[columns.image] == pictures.column:
            return Table(file, columns, list(_named_rows(opened, kept, columns.image, pictures, file)))
        return Table(file, columns, list(_rows(opened, kept)))
    raise InputError(f"{file}: cannot be read as Parquet")


def _named_rows(
    opened: Any, names: list[str], image: int, pictures: PictureColumn, file: Path
) -> Iterator[tuple[int, list[str]]]:
    """Rows whose picture is in the file itself."""
    line = 0
    others = [name for name in names if name != pictures.column]
    for group in range(opened.num_row_groups):
        given = given_names(opened, pictures, group)
        values = [column.to_pylist() for column in opened.read_row_group(group, columns=others).columns]
        for place, name in enumerate(given):
            row = [_text(column[place]) for column in values]
            row.insert(image, row_name(file, line, name))
            line += 1
            yield line, row


def _rows(opened: Any, names: list[str]) -> Iterator[tuple[int, list[str]]]:
    line = 0
    for batch in opened.iter_batches(BATCH, columns=names):
        values = [column.to_pylist() for column in batch.columns]
        for row in zip(*values, strict=True):
            line += 1
            yield line, [_text(value) for value in row]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):  # Hugging Face's pictures
            return str(value["path"])
        return struct_text(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return " ".join(map(repr, value)) if isinstance(value, list) else str(value)
