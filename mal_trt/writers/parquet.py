"""Parquet: a row for every mask, its run lengths and all that a table of them is asked for. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.writers.files import words
from mal_trt.writers.labels import LabelSet
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options

QUALITY = ("score", "box_share", "edges", "parts")
ROWS = 10_000  # rows of a group, held at once


def check_parquet() -> None:
    """InputError if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError('format parquet needs pyarrow; run: pip install "mal-trt[parquet]"') from None


def write_parquet(
    labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]
) -> None:
    """The file `path`. {"size": [height, width], "counts": counts} is COCO's run length encoding; ids are JSON."""
    import pyarrow as arrow
    from pyarrow import parquet

    texts = ("file_name", "annotation_id", "image_id", "category_id", "category", "counts")
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in texts[:1]),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            *((name, arrow.string()) for name in texts[1:]),
            *((name, arrow.float64()) for name in ("bbox_x", "bbox_y", "bbox_width", "bbox_height")),
            ("area", arrow.int64()),
            ("score", arrow.float64()),
            *((f"quality_{name}", arrow.float64()) for name in QUALITY),
        ]
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        rows = _rows(labels, losses, done)
        while page := list(islice(rows, ROWS)):
            writer.write_table(arrow.Table.from_pylist(page, schema))


def _rows(labels: LabelSet, losses: FormatLoss, done: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    for picture in labels.pictures():
        for thing in picture.objects:
            record, score = thing.record, thing.record.get("score")
            x0, y0, x1, y1 = thing.box
            yield {
                "file_name": picture.name,
                "width": picture.width,
                "height": picture.height,
                **{f"{name}_id": _json(record.get(key)) for name, key in _IDS},
                "category": words(thing.category.name),
                "counts": thing.rle["counts"],
                **{"bbox_x": x0, "bbox_y": y0, "bbox_width": x1 - x0, "bbox_height": y1 - y0},
                "area": thing.area,
                "score": float(score) if isinstance(score, (int, float)) else None,
                **{f"quality_{name}": (thing.marks or {}).get(name) for name in QUALITY},
            }
            losses.masks += 1
        done(len(picture.objects))


_IDS = (("annotation", "id"), ("image", "image_id"), ("category", "category_id"))


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)
