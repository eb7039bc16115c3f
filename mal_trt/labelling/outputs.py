"""What a finished run leaves: its labels and the list of skipped records. The formats themselves are `writers`.

Each file appears under its name when it is whole, and nothing that was there before is touched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mal_trt.base.errors import RunError
from mal_trt.base.outputs import not_written, replaced
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import JournalLabels
from mal_trt.writers.coco import write_list
from mal_trt.writers.files import text_file
from mal_trt.writers.formats import write_formats
from mal_trt.writers.options import Options

WRITTEN = "written"
RESUME = "run again with --resume"


def write_outputs(
    journal: Journal,
    formats: Sequence[str],
    out: Path,
    options: Options,
    done: Callable[[int], None] = lambda objects: None,
    again: str = RESUME,
) -> dict[str, dict[str, Any]]:
    """Write the labels of a journal at `out`: one format's file or folder, or a folder of several. Returns what each
    format lost, see `FormatLoss.figures`. done: called with how many objects were written. RunError if the disk
    refuses, or if something lies at `out`. again: what to do when that is mended."""
    before = journal.fact(WRITTEN)
    if before is not None and out.exists():
        note = json.loads(before)
        if note["inode"] == out.stat().st_ino and note["formats"] == list(formats):
            losses: dict[str, dict[str, Any]] = note["losses"]
            return losses  # by a run that was killed after this
    part = out.with_name(f".{out.name}.part")
    _remove(part)
    try:
        found = write_formats(JournalLabels(journal), formats, part, options, done)
        losses = {name: loss.figures() for name, loss in found.items()}
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise RunError(f"{out}: came into being meanwhile and is not overwritten; move it and {again}")
        note = {"inode": part.stat().st_ino, "formats": list(formats), "losses": losses}
        journal.remember(WRITTEN, json.dumps(note))
        try:
            os.replace(part, out)
        except OSError:
            journal.remember(WRITTEN, json.dumps({**note, "inode": None}))  # another file may get the number
            raise
        return losses
    except OSError as error:
        raise not_written(out, error, f"make room and {again}") from error
    finally:
        _remove(part)


def write_skipped(journal: Journal, path: Path, again: str = RESUME) -> bool:
    """The list of `skipped_records` as a file; no file if there are none. again: as of `write_outputs`."""
    records = skipped_records(journal)
    first = next(records, None)
    if first is None:
        path.unlink(missing_ok=True)
        return False
    with replaced(path, f"make room and {again}") as part, text_file(part) as file:
        write_list(file, map(json.dumps, chain([first], records)))
        file.write("\n")
    return True


def skipped_records(journal: Journal) -> Iterator[dict[str, Any]]:
    """Records without a mask in the order of the document: {index, id, image_id, reason} and perhaps detail."""
    rows = journal.execute(
        "SELECT seq, record, reason, detail FROM annotation JOIN result USING(seq) "
        "WHERE reason IS NOT NULL ORDER BY seq"
    )
    while row := rows.fetchone():
        seq, record, reason, detail = row
        values = json.loads(record)
        entry = {"index": seq, "id": values.get("id"), "image_id": values.get("image_id"), "reason": reason}
        yield {**entry, "detail": detail} if detail else entry


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
