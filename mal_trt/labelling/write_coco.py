"""What a finished run leaves: the labels and the list of skipped records. Pictures of them are `write_overlays`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from mal_trt.base.errors import RunError
from mal_trt.formats.jsonstream import BARE_LIST
from mal_trt.labelling.journal import Journal

LABELLED = "FROM annotation JOIN result USING(seq) WHERE rle IS NOT NULL ORDER BY seq"


def write_labels(journal: Journal, out: Path, box_area: bool) -> None:
    """The input document with masks: labelled records only, all else as it was, in the input's order.

    box_area: `area` is the box's width times height, as the reference writes it, instead of the mask's
    pixels.
    """
    parts = journal.execute("SELECT key, value FROM part ORDER BY position").fetchall()
    with whole_file(out) as file:
        if parts[0][0] == BARE_LIST:
            _write_list(file, _labels(journal, box_area))
        else:
            for index, (key, value) in enumerate(parts):
                file.write(f"{',' if index else '{'}\n{json.dumps(key)}: ")
                if value is not None:
                    file.write(value)
                elif key == "annotations":
                    _write_list(file, _labels(journal, box_area))
                else:
                    _write_list(file, (r for (r,) in journal.execute("SELECT record FROM image ORDER BY position")))
            file.write("\n}")
        file.write("\n")


def write_skipped(journal: Journal, path: Path) -> bool:
    """Records without a mask, as [{index, id, image_id, reason, detail}]; no file if there are none."""
    rows = journal.execute(
        "SELECT seq, record, reason, detail FROM annotation JOIN result USING(seq) "
        "WHERE reason IS NOT NULL ORDER BY seq"
    )
    first = rows.fetchone()
    if first is None:
        path.unlink(missing_ok=True)
        return False

    def lines() -> Iterator[str]:
        row = first
        while row:
            seq, record, reason, detail = row
            values = json.loads(record)
            entry = {
                "index": seq,
                "id": values.get("id"),
                "image_id": values.get("image_id"),
                "reason": reason,
            }
            yield json.dumps({**entry, "detail": detail} if detail else entry)
            row = rows.fetchone()

    with whole_file(path) as file:
        _write_list(file, lines())
        file.write("\n")
    return True


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears under its name only when it is complete; RunError if the disk refuses."""
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room and run again with --resume"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _labels(journal: Journal, box_area: bool) -> Iterator[str]:
    for text, rle, area in journal.execute(f"SELECT record, rle, area {LABELLED}"):
        record: dict[str, Any] = json.loads(text)
        record["segmentation"] = json.loads(rle)
        record["area"] = float(record["bbox"][2] * record["bbox"][3]) if box_area else area
        record.setdefault("iscrowd", 0)
        yield json.dumps(record)


def _write_list(file: TextIO, records: Iterator[str]) -> None:
    file.write("[")
    for index, record in enumerate(records):
        file.write(f"{',' if index else ''}\n{record}")
    file.write("\n]")


def category_names(journal: Journal) -> dict[Any, str]:
    """Names of a document's categories by their ids, in its order."""
    row = journal.execute("SELECT value FROM part WHERE key='categories'").fetchone()
    categories = json.loads(row[0]) if row else []
    if not isinstance(categories, list):
        return {}
    entries = [c for c in categories if isinstance(c, dict) and isinstance(c.get("id"), (int, str))]
    return {c["id"]: str(c.get("name", "")) for c in entries}
