"""The page's work written in a format, by the code that writes the labels of `mal-trt label`."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from mal_trt.base.errors import RunError
from mal_trt.geometry.boxes import clip_box
from mal_trt.labelling.document_rows import parse_bbox
from mal_trt.labelling.journal import Box, Result
from mal_trt.labelling.journal import Journal as Labels
from mal_trt.labelling.outputs import write_outputs
from mal_trt.serve.annotations import ACCEPTED, BRUSH, COLUMNS, MODEL, REJECTED, Annotation
from mal_trt.serve.journal import Journal
from mal_trt.serve.loading import LAST_ID
from mal_trt.writers.formats import FORMATS
from mal_trt.writers.losses import describe
from mal_trt.writers.options import Options

ROWS = 500
# Nobody says of these pictures that they are empty.
UNDECIDED = "not looked at"


@dataclass(frozen=True)
class Exported:
    """file: what to download. written: masks in it. left_out: objects that were rejected, or not accepted where only
    accepted ones were wanted. undrawn: objects without a mask. losses: what the format could not hold, a line each."""

    file: Path
    written: int
    left_out: int
    undrawn: int
    losses: list[str]


class _Picture(NamedTuple):
    """A picture in the label run's journal: its position and sides there, and its id in the document."""

    position: int
    width: int
    height: int
    key: Any


def export(journal: Journal, folder: Path, stem: str, format: str, options: Options, accepted: bool) -> Exported:
    """Write all that was not rejected, or only what was accepted, into the new folder `folder`; several files are
    packed as a .zip. RunError if the disk refuses, or if there is nothing to write."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from None
    labels = Labels(folder / ".journal")
    try:
        with labels.guard(), labels.transaction():
            labels.create({})
            counts = _fill(labels, journal, accepted)
        if not counts[0]:
            raise RunError("there is no mask to export" + (" that was accepted" if accepted else ""))
        out = folder / f"{stem}{FORMATS[format].ending}"
        with labels.guard():
            losses = write_outputs(labels, [format], out, options)
        file = _packed(out) if out.is_dir() else out
    except BaseException:
        labels.delete()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    labels.delete()
    lines = [line for name, figures in losses.items() if (line := describe(name, figures))]
    return Exported(file, *counts, lines)


def _fill(labels: Labels, journal: Journal, accepted: bool) -> tuple[int, int, int]:
    """Fill a label run's journal; how many objects are written, left out, and without a mask."""
    with journal.lock:  # no step comes in between
        classes = journal.execute("SELECT number, key, name FROM category ORDER BY number")
        keys = {number: key for number, key, _ in classes}
        labels.insert("part", [(None, key, value) for key, value in _parts(journal, classes)])
        pictures = _pictures(labels, journal, accepted)
        return _annotations(labels, journal, accepted, keys, pictures)


def _parts(journal: Journal, classes: list[Any]) -> Iterator[tuple[str, str | None]]:
    for key, value in journal.execute("SELECT key, value FROM part ORDER BY position"):
        if key == "categories" and value is not None:
            value = _categories(value, classes)
        yield key, value


def _categories(value: str, classes: list[Any]) -> str:
    """The document's own list, with the classes that are new and the names that are."""
    before = json.loads(value)
    records = {c.get("id"): c for c in before if isinstance(c, dict)} if isinstance(before, list) else {}
    wanted = [
        {**records.get(key, {"id": key}), "name": name} if records.get(key, {}).get("name") != name else records[key]
        for _, key, name in classes
        if key is not None
    ]
    return value if wanted == before else json.dumps(wanted)


def _pictures(labels: Labels, journal: Journal, accepted: bool) -> dict[int, _Picture]:
    """Pictures of the document, and others with an object or that were looked at, by their numbers here."""
    left = f"SELECT 1 FROM annotation WHERE picture = p.id AND gone=0 AND state != '{REJECTED}'"
    undecided = f"EXISTS ({left} AND state != '{ACCEPTED}')" if accepted else "0"
    rows = journal.execute(
        f"SELECT id, name, width, height, problem, record, looked, {undecided}, EXISTS ({left}) "
        "FROM picture AS p ORDER BY id"
    )
    named = [json.loads(row[5]).get("id") for row in rows if row[5]]
    last = max((key for key in named if isinstance(key, int)), default=0)
    found = {}
    for position, (id, name, width, height, problem, text, looked, open, any_left) in enumerate(rows):
        if text is None and not looked and not any_left:
            continue
        if text is None:
            last += 1
            text = json.dumps({"id": last, "file_name": name, "width": width, "height": height})
        found[id] = _Picture(position, width, height, json.loads(text).get("id"))
        reason = (problem if any_left else None) or (UNDECIDED if open else None)
        labels.insert("image", [(position, id, name, width, height, reason, None, text, None)])
    return found


def _annotations(
    labels: Labels, journal: Journal, accepted: bool, keys: dict[int, Any], pictures: dict[int, _Picture]
) -> tuple[int, int, int]:
    written = left_out = undrawn = 0
    (last,) = journal.execute("SELECT COALESCE(MAX(id), 0) FROM annotation")[0]
    fields = ", ".join(COLUMNS)
    # Pictures one after the other, as the plan of a label run has its boxes.
    places = {
        id: place
        for place, (id,) in enumerate(journal.execute("SELECT id FROM annotation WHERE gone=0 ORDER BY picture, id"))
    }
    free = count(int(journal.fact(LAST_ID) or 0) + 1)
    for start in range(0, last + 1, ROWS):
        for row in journal.execute(
            f"SELECT {fields}, record FROM annotation WHERE gone=0 AND id > ? AND id <= ? ORDER BY id",
            (start, start + ROWS),
        ):
            one, text = Annotation(*row[:-1]), row[-1]
            if one.state == REJECTED or (accepted and one.state != ACCEPTED):
                left_out += 1
                continue
            if one.counts is None:
                undrawn += 1
                continue
            picture = pictures[one.picture]
            record = _record(one, text, keys[one.category], picture, free)
            x, y, w, h = record["bbox"]
            rle = json.dumps({"size": [picture.height, picture.width], "counts": one.counts}, separators=(",", ":"))
            key = (one.id, record.get("id"), one.picture, keys[one.category], x, y, w, h, json.dumps(record))
            labels.insert("annotation", [key])
            labels.insert("box", [Box(places[one.id], one.id, picture.position, *one.box, 0, 0)])
            quality = one.score if one.source == MODEL else None
            labels.insert("result", [Result(one.id, rle, one.area, quality=quality)])
            written += 1
    return written, left_out, undrawn


def _record(one: Annotation, text: str | None, key: Any, picture: _Picture, free: Iterator[int]) -> dict[str, Any]:
    """The annotation as COCO has it: that of the document, with what was changed."""
    x0, y0, x1, y1 = one.box
    bbox = [x0, y0, x1 - x0, y1 - y0]
    if text is None:
        return {"id": next(free), "image_id": picture.key, "category_id": key, "bbox": bbox, "iscrowd": 0}
    record: dict[str, Any] = json.loads(text)
    if _clipped(record.get("bbox"), picture) != one.box:
        record["bbox"] = bbox
    if key is not None and str(record.get("category_id")) != str(key):
        record["category_id"] = key
    if one.source == BRUSH:
        record.pop("quality", None)
    return record


def _clipped(bbox: Any, picture: _Picture) -> tuple[float, float, float, float] | None:
    found = parse_bbox(bbox)
    if isinstance(found, str):
        return None
    x, y, w, h = found
    return clip_box((x, y, x + w, y + h), picture.width, picture.height)


def _packed(folder: Path) -> Path:
    """A .zip of all files of a folder, in its place."""
    file = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                archive.write(one, one.relative_to(folder.parent).as_posix())
    shutil.rmtree(folder)
    return file
