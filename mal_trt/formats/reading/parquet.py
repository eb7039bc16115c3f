"""Parquet with the columns of a CSV of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import open_regular
from mal_trt.formats.images import ImageSource
from mal_trt.formats.reading.build import Read
from mal_trt.formats.reading.columns import find_columns
from mal_trt.formats.reading.table import Table, read_tables

MAGIC = b"PAR1"
BATCH = 4096  # rows held at once


def read_parquet(files: list[Path], images: ImageSource, split: str | None = None) -> Read:
    """The document of Parquet files; a box may be one column of lists or structs."""
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise RunError('boxes in Parquet need pyarrow; run: pip install "mal-trt[parquet]"') from None
    import pyarrow as pa

    tables = []
    for file in files:
        try:
            with open_regular(file) as stream:
                opened = pq.ParquetFile(stream)
                columns = find_columns(opened.schema_arrow.names, str(file))
                wanted = [
                    *columns.box,
                    columns.image,
                    columns.kind,
                    columns.score,
                    columns.split,
                    *(columns.size or ()),
                ]
                kept = [name for place, name in enumerate(opened.schema_arrow.names) if place in wanted]
                columns = find_columns(kept, str(file))
                tables.append(Table(file, columns, list(_rows(opened, kept))))
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from None
    return read_tables(tables, images, split)


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
        value = list(value.values())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return " ".join(map(repr, value)) if isinstance(value, list) else str(value)
