"""A shard: a Parquet file with a row for every box, those without a mask too, and its run record in its metadata.

| column | what it is |
|---|---|
| `file_name`, `width`, `height` | the picture; null for boxes of unknown pictures |
| `image_id`, `annotation_id`, `category_id` | ids of the document, as JSON |
| `category` | name of the class |
| `bbox_x`, `bbox_y`, `bbox_width`, `bbox_height` | the box clipped to the picture, pixels; null without a mask |
| `counts` | the mask, COCO's run lengths, `{"size": [height, width], "counts": counts}`; null without a mask |
| `area` | the mask's pixels |
| `score` | how sure the network is of the mask, 0 to 1 |
| `model_sha256` | the model's file |
| `reason`, `detail` | why there is no mask; null where there is one |
| `record` | the box as it stood in the document, JSON |
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import category_names, outcomes

KEY = b"mal_trt"
ROWS = 10_000  # rows of a group, held at once
_TEXTS = (
    "annotation_id",
    "image_id",
    "category_id",
    "category",
    "counts",
    "model_sha256",
    "reason",
    "detail",
    "record",
)


def schema() -> Any:
    """The columns of a shard, as pyarrow has them."""
    arrow = pyarrow_module()
    return arrow.schema(
        [
            ("file_name", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            *((name, arrow.string()) for name in _TEXTS[:4]),
            *((name, arrow.float64()) for name in ("bbox_x", "bbox_y", "bbox_width", "bbox_height")),
            ("counts", arrow.string()),
            ("area", arrow.int64()),
            ("score", arrow.float64()),
            *((name, arrow.string()) for name in _TEXTS[5:]),
        ]
    )


def write_shard(journal: Journal, file: Path, model: str, record: dict[str, Any]) -> None:
    """Write the file of a journal whose boxes all have a result. model: its SHA-256. record: the run record."""
    arrow = pyarrow_module()
    from pyarrow import parquet

    images = list(journal.images())
    document = {
        "images": [json.loads(image.record) for image in images],
        "sizes": [(image.file_name, image.width, image.height) for image in images],
        "parts": [(key, value) for key, value in journal.parts() if value is not None],
    }
    columns = schema().with_metadata({KEY: json.dumps({"record": record, "document": document}).encode()})
    try:
        with parquet.ParquetWriter(file, columns, compression="zstd") as writer:
            rows = _rows(journal, model)
            while page := list(islice(rows, ROWS)):
                writer.write_table(arrow.Table.from_pylist(page, columns))
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror or error}); make room and run again") from None


def read_record(file: Path, name: str | None = None) -> dict[str, Any]:
    """{"record": the run record, "document": images and other parts} of a shard; InputError if it is none, or not
    whole. name: what the file is a copy of, if it is one."""
    pyarrow_module()
    from pyarrow import parquet

    try:
        content = (parquet.read_schema(file).metadata or {})[KEY]
        found: dict[str, Any] = json.loads(content)
        return found
    except (OSError, ValueError, KeyError):
        raise _not_whole(name or file) from None


def read_rows(file: Path, name: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a shard, in order; InputError likewise."""
    arrow = pyarrow_module()
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches(1024):
            yield from batch.to_pylist()
    except (OSError, ValueError, KeyError, arrow.ArrowException):
        raise _not_whole(name or file) from None


def _not_whole(name: str | Path) -> InputError:
    return InputError(f"{name}: not a whole shard of mal-trt; delete it and run `mal-trt label` again")


def _rows(journal: Journal, model: str) -> Iterator[dict[str, Any]]:
    names = category_names(journal)
    for one in outcomes(journal):
        box: tuple[float | None, ...] = (None,) * 4
        if one.rle is not None:
            box = (one.x0, one.y0, one.x1 - one.x0, one.y1 - one.y0)
        yield {
            "file_name": one.file_name,
            "width": one.width,
            "height": one.height,
            "annotation_id": _json(one.id),
            "image_id": _json(one.image_id),
            "category_id": _json(one.category_id),
            "category": names.get(one.category_id),
            **dict(zip(("bbox_x", "bbox_y", "bbox_width", "bbox_height"), box, strict=True)),
            "counts": None if one.rle is None else json.loads(one.rle)["counts"],
            "area": one.area,
            "score": one.quality,
            "model_sha256": model,
            "reason": one.reason,
            "detail": one.detail,
            "record": one.record,
        }


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def pyarrow_module() -> Any:
    """pyarrow; InputError if it is not installed."""
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise InputError('shards need pyarrow; run: pip install "mal-trt[parquet]"') from None
    return pyarrow
