"""How the page's work begins, and goes on: the boxes of a file and the pictures of a folder go into the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from mal_trt.labelling.read_report import read_report
from mal_trt.serve.annotations import FILE, MODEL, Annotation
from mal_trt.serve.journal import Journal
from mal_trt.serve.security import has_odd_characters

BATCH = 1 << 20  # the plan's batches mean nothing here
SKIPPED = "boxes.skipped.json"
NOT_UTF8 = "its name is not UTF-8; give it another"
ODD_NAME = "its name has a backslash or a control character; give it another"
NOTES = "notes"
LAST_ID = "last id"  # of the document's records, those that cannot be used too
PARTS = (("images", None), ("annotations", None), ("categories", "[]"))


def load(
    journal: Journal, pictures: str, boxes: Boxes | None, source: ImageSource | None, in_folder: bool, folder: Path
) -> None:
    """Let the journal hold all that is given, what it holds already left as it is; all or nothing.

    pictures: what the pictures are remembered by. in_folder: whether they are files of a folder. folder: where boxes
    that cannot be used are listed. InputError if the work was begun with something else.
    """
    with journal.transaction():
        _check_same(journal, "pictures", pictures)
        if boxes is not None and source is not None:
            _check_boxes(journal, boxes)
            if journal.fact(NOTES) is None:
                _load_boxes(journal, boxes, source, folder)
            else:
                _load_found(journal, boxes, source, folder)
        elif journal.fact(NOTES) is None:
            _begin_without_boxes(journal)
        # What was wrong may be right by now: the file, or the server's limits. If not, it is found again.
        journal.execute("UPDATE picture SET problem=NULL WHERE stored IS NOT NULL")
        if source is not None:
            _load_pictures(journal, source)
        if in_folder:
            _mark_odd_names(journal)


def _check_same(journal: Journal, name: str, value: str) -> None:
    before = journal.fact(name)
    if before is None:
        journal.remember(name, value)
    elif before != value:
        raise _other(journal, name, before)


def _check_boxes(journal: Journal, boxes: Boxes) -> None:
    """The same boxes are the same content, wherever it lies. Work in which nothing was done yet takes any."""
    digest = boxes.sha256()[:16]
    before = journal.fact("boxes")
    if before is not None and before.rpartition(" ")[2] != digest:
        raise _other(journal, "boxes", before)
    if before is None and journal.fact(NOTES) is not None:
        if journal.touched():
            raise InputError(
                f"{journal.path.parent}: begun without boxes; give another --workspace for those of {boxes}"
            )
        journal.empty()
    if before is None:
        journal.remember("boxes", f"{boxes} {digest}")


def _other(journal: Journal, name: str, before: str) -> InputError:
    return InputError(f"{journal.path.parent}: begun with other {name} ({before}); give another --workspace for these")


@contextmanager
def _planned(boxes: Boxes, source: ImageSource, folder: Path) -> Iterator[Plan]:
    """The plan that a label run of the boxes would make, until they are loaded."""
    plan = Plan(folder / ".loading")
    try:
        if plan.planned:  # left by a start that was killed
            plan.delete()
            plan = Plan(folder / ".loading")
        with plan.guard():
            write_plan(plan, {}, boxes, None, source, BATCH)
            yield plan
    finally:
        plan.delete()


def _load_boxes(journal: Journal, boxes: Boxes, source: ImageSource, folder: Path) -> None:
    """The document of the boxes: its pictures, its classes, an object for each box that can be used.

    Masks that the file has are kept as its own. Boxes that cannot be used are listed in `folder`.
    """
    with _planned(boxes, source, folder) as plan:
        _parts(journal, plan)
        numbers = _categories(journal, plan)
        pictures = _pictures(journal, plan, source)
        journal.start(_annotations(plan, numbers, pictures))
        journal.remember(LAST_ID, str(plan.last_id()))
        _tell(journal, plan, folder)


def _load_found(journal: Journal, boxes: Boxes, source: ImageSource, folder: Path) -> None:
    """The boxes of pictures that were missing when the work was begun, and are there now."""
    known = {stored for (stored,) in journal.execute("SELECT stored FROM picture WHERE upload=0 AND stored NOT NULL")}
    found: dict[str, tuple[int, str]] = {}
    missing = "upload=0 AND stored IS NULL AND record NOT NULL"
    for id, name in journal.execute(f"SELECT id, name FROM picture WHERE {missing}"):
        try:
            stored = source.find(name)
        except ImageProblem:
            continue
        if stored not in known:
            known.add(stored)
            found[name] = id, stored
    if not found:
        return
    with _planned(boxes, source, folder) as plan:
        numbers = {key: number for number, key in journal.execute("SELECT number, key FROM category")}
        for key in plan.planned_categories():
            if key not in numbers:
                numbers[key] = len(numbers) + 1
                values = (numbers[key], key, UNNAMED if key is None else str(key))
                journal.insert("category", "number, key, name", [values])
        pictures: dict[int, int] = {}
        for image in plan.images():
            if image.reason is None and image.file_name in found:
                pictures[image.position], stored = found[image.file_name]
                journal.execute(
                    "UPDATE picture SET stored=?, width=?, height=?, problem=NULL WHERE id=?",
                    (stored, image.width, image.height, pictures[image.position]),
                )
        journal.start(_annotations(plan, numbers, pictures))
        _tell(journal, plan, folder)


def _tell(journal: Journal, plan: Plan, folder: Path) -> None:
    found = read_report(plan)
    notes = [found.line, *found.notes]
    if write_skipped(plan, folder / SKIPPED):
        reasons = plan.skipped()
        listed = "; ".join(f"{reason}: {count:,}" for reason, count in list(reasons.items())[:3])
        count = sum(reasons.values())
        notes.append(f"{count:,} {'box' if count == 1 else 'boxes'} cannot be used ({listed}), listed in {SKIPPED}")
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    journal.remember(NOTES, json.dumps(notes))


def _load_pictures(journal: Journal, source: ImageSource) -> None:
    """Every picture that the document does not name, in the order of the folder."""
    known = {name for (name,) in journal.execute("SELECT COALESCE(stored, name) FROM picture WHERE upload=0")}
    rows = (_picture_row(name) for name in source.names())
    journal.insert("picture", "upload, name, stored, problem", (row for row in rows if row[1] not in known))


def _picture_row(name: str) -> tuple[int, str, str | None, str | None]:
    """A picture of the folder. A name that is not UTF-8 can be neither kept nor sent, so its picture has a problem."""
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return (0, name, name, None) if shown == name else (0, shown, None, NOT_UTF8)


def _mark_odd_names(journal: Journal) -> None:
    """Pictures that `security.inside` would not open have a problem from the start."""
    for id, stored in journal.execute("SELECT id, stored FROM picture WHERE upload=0 AND stored IS NOT NULL"):
        if has_odd_characters(stored):
            journal.execute("UPDATE picture SET problem=? WHERE id=?", (ODD_NAME, id))


def _begin_without_boxes(journal: Journal) -> None:
    """An empty document with one class."""
    journal.insert("part", "key, value", PARTS)
    journal.insert("category", "number, key, name", [(1, 1, UNNAMED)])
    journal.remember(NOTES, "[]")


def _parts(journal: Journal, plan: Plan) -> None:
    """The document's other keys. A bare list becomes a document, so that it can hold classes."""
    parts = plan.parts()
    if any(key == BARE_LIST for key, _ in parts):
        parts = list(PARTS)
    elif not any(key == "categories" for key, _ in parts):
        parts.append(PARTS[2])
    journal.insert("part", "key, value", parts)


def _categories(journal: Journal, plan: Plan) -> dict[Any, int]:
    """Classes, those that only boxes name at the end; their numbers by their ids in the document."""
    names = category_names(plan)
    for key in plan.planned_categories():
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
    for position, name, width, height, reason, detail, record in plan.images():
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


def _annotations(
    plan: Plan, numbers: Mapping[Any, int], pictures: Mapping[int, int]
) -> Iterator[tuple[Annotation, str]]:
    for one in plan.planned_records():
        if one.image not in pictures:
            continue
        record = json.loads(one.record)
        counts, area = _mask(record.get("segmentation"), one.height, one.width)
        quality = record.get("quality")
        score = quality.get("score") if isinstance(quality, dict) and counts else None
        yield (
            Annotation(
                *(0, pictures[one.image], *one.xyxy, numbers[one.category_id], None),
                source=FILE if counts else MODEL,
                counts=counts,
                area=area,
                score=score if isinstance(score, (int, float)) else None,
            ),
            one.record,
        )


def _mask(segmentation: Any, height: int, width: int) -> tuple[str | None, int | None]:
    if not segmentation:
        return None, None
    try:
        rle = to_rle(segmentation, height, width)
    except ValueError:  # the model draws it
        return None, None
    return rle["counts"], int(run_lengths(rle)[1::2].sum())
