"""How the page's work begins: the boxes of a file and the pictures of a folder go into the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.formats.jsonstream import BARE_LIST
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.rle import run_lengths
from mal_trt.labelling.journal import Journal as Plan
from mal_trt.labelling.journal_labels import UNNAMED, category_names
from mal_trt.labelling.outputs import write_skipped
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.told import told
from mal_trt.serve.annotations import FILE, MODEL, Annotation
from mal_trt.serve.journal import Journal

BATCH = 1 << 20  # the plan's batches mean nothing here
SKIPPED = "boxes.skipped.json"
LAST_ID = "last id"  # of the document's records, those that cannot be used too
PARTS = (("images", None), ("annotations", None), ("categories", "[]"))


def load_boxes(journal: Journal, boxes: Boxes, source: ImageSource, folder: Path) -> None:
    """The document of the boxes: its pictures, its classes, an object for each box that can be used; all or nothing.

    Masks that the file has are kept as its own. Boxes that cannot be used are listed in `folder`.
    """
    plan = Plan(folder / ".loading")
    try:
        if plan.planned:  # left by a start that was killed
            plan.delete()
            plan = Plan(folder / ".loading")
        with plan.guard(), journal.transaction():
            write_plan(plan, {}, boxes, None, source, BATCH)
            _parts(journal, plan)
            numbers = _categories(journal, plan)
            pictures = _pictures(journal, plan, source)
            journal.start(_annotations(plan, numbers, pictures))
            (last,) = plan.execute("SELECT MAX(id) FROM annotation WHERE typeof(id) = 'integer'").fetchone()
            journal.remember(LAST_ID, str(max(0, last or 0)))
            found = told(plan)
            notes = [found.line, *found.notes]
            if write_skipped(plan, folder / SKIPPED):
                reasons = plan.skipped()
                listed = "; ".join(f"{reason}: {count:,}" for reason, count in list(reasons.items())[:3])
                notes.append(f"{sum(reasons.values()):,} boxes cannot be used ({listed}), listed in {SKIPPED}")
            journal.remember("notes", json.dumps(notes))
    finally:
        plan.delete()


def load_pictures(journal: Journal, source: ImageSource) -> None:
    """Every picture that the document does not name, in the order of the folder."""
    known = {name for (name,) in journal.execute("SELECT stored FROM picture WHERE upload=0")}
    new = [(name, name) for name in source.names() if name not in known]
    with journal.transaction():
        journal.insert("picture", "upload, name, stored", ((0, *names) for names in new))


def begin_without_boxes(journal: Journal) -> None:
    """An empty document with one class."""
    with journal.transaction():
        journal.insert("part", "key, value", PARTS)
        journal.insert("category", "number, key, name", [(1, 1, UNNAMED)])
        journal.remember("notes", "[]")


def _parts(journal: Journal, plan: Plan) -> None:
    """The document's other keys. A bare list becomes a document, so that it can hold classes."""
    parts = plan.execute("SELECT key, value FROM part ORDER BY position").fetchall()
    if any(key == BARE_LIST for key, _ in parts):
        parts = list(PARTS)
    elif not any(key == "categories" for key, _ in parts):
        parts.append(PARTS[2])
    journal.insert("part", "key, value", parts)


def _categories(journal: Journal, plan: Plan) -> dict[Any, int]:
    """Classes, those that only boxes name at the end; their numbers by their ids in the document."""
    names = category_names(plan)
    for (key,) in plan.execute("SELECT DISTINCT category_id FROM annotation JOIN box USING(seq) ORDER BY 1"):
        names.setdefault(key, UNNAMED if key is None else str(key))
    if not names:
        names[1] = UNNAMED
    numbers = {key: number for number, key in enumerate(names, 1)}
    journal.insert("category", "number, key, name", ((numbers[key], key, name) for key, name in names.items()))
    return numbers


def _pictures(journal: Journal, plan: Plan, source: ImageSource) -> dict[int, int]:
    """Pictures of the document by their places there. One without a file is kept, with the reason."""
    ids: dict[int, int] = {}
    stored_as: dict[str, int] = {}
    columns = "position, file_name, width, height, reason, detail, record"
    rows = plan.execute(f"SELECT {columns} FROM image ORDER BY position")
    for position, name, width, height, reason, detail, record in rows:
        stored, problem = None, ": ".join(filter(None, (reason, detail))) or None
        if name and not problem:
            try:
                stored = source.find(name)
            except ImageProblem as found:
                problem = str(found)
        if stored in stored_as:  # a picture that the document lists twice
            ids[position] = stored_as[stored]
            continue
        values = (0, name or f"picture {position}", stored, width, height, problem, record)
        journal.insert("picture", "upload, name, stored, width, height, problem, record", [values])
        ids[position] = int(journal.execute("SELECT last_insert_rowid()")[0][0])
        if stored is not None:
            stored_as[stored] = ids[position]
    return ids


def _annotations(plan: Plan, numbers: dict[Any, int], pictures: dict[int, int]) -> Iterator[tuple[Annotation, str]]:
    rows = plan.execute(
        "SELECT image, width, height, x0, y0, x1, y1, category_id, annotation.record FROM annotation "
        "JOIN box USING(seq) JOIN image ON image.position = box.image ORDER BY annotation.seq"
    )
    for image, width, height, x0, y0, x1, y1, category, text in rows:
        record = json.loads(text)
        counts, area = _mask(record.get("segmentation"), height, width)
        quality = record.get("quality")
        score = quality.get("score") if isinstance(quality, dict) and counts else None
        yield (
            Annotation(
                *(0, pictures[image], x0, y0, x1, y1, numbers[category], None),
                source=FILE if counts else MODEL,
                counts=counts,
                area=area,
                score=score if isinstance(score, (int, float)) else None,
            ),
            text,
        )


def _mask(segmentation: Any, height: int, width: int) -> tuple[str | None, int | None]:
    if not segmentation:
        return None, None
    try:
        rle = to_rle(segmentation, height, width)
    except ValueError:  # the model draws it
        return None, None
    return rle["counts"], int(run_lengths(rle)[1::2].sum())


def check_same(journal: Journal, given: dict[str, str]) -> None:
    """Remember what the work is begun with; InputError if it was begun with something else."""
    for name, value in given.items():
        before = journal.fact(name)
        if before is None:
            journal.remember(name, value)
        elif before != value:
            folder = journal.path.parent
            raise InputError(f"{folder}: begun with other {name} ({before}); give another --workspace for these")
