"""The plan of a label run: every record of a document checked and given its turn. (A TensorRT plan is an engine.)

The plan follows from the document alone: pictures in the order they are listed, boxes of one size class
gathered into one batch across pictures. A box that fails later leaves a hole in its batch, so an interrupted
run that goes on runs the very batches an uninterrupted one would have run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import BoxesLike, as_boxes
from mal_trt.formats.ids import identity
from mal_trt.formats.images import ImageSource
from mal_trt.formats.jsonstream import BARE_LIST, STREAMED, Entry, read_document
from mal_trt.formats.reading.coco import named
from mal_trt.formats.reading.results import GIVEN
from mal_trt.geometry.boxes import SizeClass, clip_box, size_class
from mal_trt.labelling.document_rows import (
    DUPLICATE,
    OUTSIDE,
    UNKNOWN_CATEGORY,
    UNKNOWN_IMAGE,
    annotation_row,
    bad_box,
    boxed,
    image_row,
)
from mal_trt.labelling.hints import hints
from mal_trt.labelling.journal import Box, Journal, Result
from mal_trt.labelling.pictures import find_pictures
from mal_trt.labelling.read_report import ReadReport

ROWS = 1000  # rows per statement while loading


def write_plan(
    journal: Journal,
    facts: Mapping[str, str],
    boxes: BoxesLike,
    image_list: str | Path | None,
    source: ImageSource,
    batch: int,
    masks: bool = False,
    repeated: Iterable[int] = (),
    look: bool = True,
) -> None:
    """Load a document (or a bare list, whose pictures `image_list` may name) and plan batches of `batch`
    boxes.

    facts: see `Journal.create`. masks: a record without a box has that of its mask. repeated: places of annotations
    whose ids stand in another part of the document too, before these. look: False takes a picture whose name and size
    the document gives as it says, wherever it is. All is stored in one transaction: a journal
    holds a whole plan or none. InputError if a file is not what it should be. Records that cannot be labelled
    get their reason at once.
    """
    with journal.transaction():
        journal.create(facts)
        boxes = as_boxes(boxes)
        keys = _load(journal, map(boxed, boxes.entries(source)) if masks else boxes.entries(source), boxes.path)
        if BARE_LIST not in keys:
            _require(boxes.path, keys, "images", "annotations")
            if image_list is not None:
                raise InputError(f"{image_list}: {boxes} names its pictures itself; leave out the image list")
        elif image_list is not None:
            _require(image_list, _load(journal, named(read_document(image_list)), image_list, whole=False), "images")
        journal.execute("CREATE INDEX annotation_image ON annotation(image_id)")
        journal.execute("CREATE INDEX annotation_id ON annotation(id)")
        if BARE_LIST in keys and image_list is None:
            journal.execute(
                "INSERT INTO image(id) SELECT image_id FROM annotation WHERE image_id IS NOT NULL "
                "GROUP BY image_id ORDER BY MIN(seq)"
            )
        journal.execute("CREATE INDEX image_id ON image(id)")
        _match_ids(journal)
        renamed = find_pictures(journal, source, boxes.rescale, look)
        _skip_records(journal, repeated)
        _plan_batches(journal, batch)
        (records,) = journal.execute("SELECT COUNT(*) FROM annotation").fetchone()
        (classes,) = journal.execute("SELECT COUNT(DISTINCT category_id) FROM annotation").fetchone()
        notes = [*boxes.notes, *hints(journal, boxes.rescale)]
        title = "a list of COCO results" if BARE_LIST in keys else boxes.title
        ReadReport(title, records, classes, renamed, tuple(notes)).keep(journal)


def _require(path: str | Path, keys: set[str], *wanted: str) -> None:
    missing = [f"`{key}`" for key in wanted if key not in keys]
    if missing:
        raise InputError(f"{path}: no {' and no '.join(missing)}; expected a COCO document, or a bare list of results")


def _load(journal: Journal, entries: Iterator[Entry], path: str | Path, whole: bool = True) -> set[str]:
    """Store the pieces of the document at `path`; whole: False keeps only its pictures and the names of its classes.
    Returns the keys found."""
    keys: set[str] = set()

    def records() -> Iterator[Entry]:
        for entry in entries:
            if not whole and entry.key not in GIVEN:
                continue
            if entry.index is not None:
                yield entry
                continue
            keys.add(entry.key)
            if whole or entry.key == "categories":
                text = None if entry.key in (*STREAMED, BARE_LIST) else entry.text
                journal.insert("part", [(None, entry.key, text)])
            if whole and entry.key == "categories":  # results may have classes that the list does not know
                _load_categories(journal, entry.value)

    rest = records()
    for first in rest:
        chunk = list(islice(chain([first], rest), ROWS))
        if first.key == BARE_LIST and first.index == 0:
            _check_results(path, first.value)
        journal.insert("image", [image_row(e) for e in chunk if e.key == "images"])
        boxes = [e for e in chunk if e.key != "images"]
        journal.insert("annotation", [annotation_row(e) for e in boxes])
        journal.insert("result", [r for e in boxes if (r := bad_box(e))])
    return keys


def _check_results(path: str | Path, record: dict[str, Any]) -> None:
    if not {"image_id", "bbox"} & record.keys():
        raise InputError(
            f"{path}: record 0 of the list has neither `image_id` nor `bbox`; expected results such as "
            '{"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}'
        )


def _load_categories(journal: Journal, categories: Any) -> None:
    ids = [c.get("id") for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    journal.insert("category", [(key,) for key in map(identity, ids) if key is not None], ignore=True)


def _match_ids(journal: Journal) -> None:
    """Ids that refer to none, but would as a number, or as text, become that; see `same_id`."""
    for table, column in (("image", "image_id"), ("category", "category_id")):
        journal.execute(
            f"UPDATE annotation SET {column} = other_type({column}) "
            f"WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE id = annotation.{column}) "
            f"AND EXISTS (SELECT 1 FROM {table} WHERE id = other_type(annotation.{column}))"
        )


def _skip_records(journal: Journal, repeated: Iterable[int]) -> None:
    """Give a reason to every record that does not fit the document; the first reason found stays."""
    checks = (
        f"SELECT seq, NULL, NULL, '{UNKNOWN_IMAGE}', NULL FROM annotation "
        "WHERE NOT EXISTS (SELECT 1 FROM image WHERE id = annotation.image_id)",
        f"SELECT seq, NULL, NULL, '{UNKNOWN_CATEGORY}', NULL FROM annotation "
        "WHERE EXISTS (SELECT 1 FROM category) "
        "AND NOT EXISTS (SELECT 1 FROM category WHERE id = annotation.category_id)",
        f"SELECT seq, NULL, NULL, '{DUPLICATE}', NULL FROM annotation AS later WHERE EXISTS "
        "(SELECT 1 FROM annotation WHERE id = later.id AND seq < later.seq)",
    )
    unseen = f"SELECT seq, NULL, NULL, image.reason, image.detail FROM {_WITH_IMAGE} WHERE image.reason IS NOT NULL"
    for check in (*checks, None, unseen):
        if check is None:
            journal.insert("result", [Result(seq, None, None, DUPLICATE) for seq in repeated], ignore=True)
        else:
            journal.execute(f"INSERT OR IGNORE INTO result(seq, rle, area, reason, detail) {check}")


class Batches:
    """Gathers boxes of one size class into batches of `most`, in their turn, which are numbered from `first` on."""

    def __init__(self, most: int, first: int = 0) -> None:
        self._most, self._next = most, first
        self._filling: dict[SizeClass, list[int]] = {}  # number of the batch, boxes in it
        self._full: list[tuple[int, int, int]] = []

    def add(self, box: tuple[float, float, float, float]) -> tuple[int, int]:
        """The next box, XYXY: its batch and its slot there."""
        size = size_class((box[2] - box[0]) * (box[3] - box[1]))
        if size not in self._filling:
            self._filling[size] = [self._next, 0]
            self._next += 1
        number, slot = self._filling[size]
        self._filling[size][1] += 1
        if slot + 1 == self._most:
            self._full.append((number, size, self._most))
            del self._filling[size]
        return number, slot

    def full(self) -> list[tuple[int, int, int]]:
        """Batches that are full since this was last asked: number, size class, boxes."""
        full, self._full = self._full, []
        return full

    def rest(self) -> list[tuple[int, int, int]]:
        """Batches that never became full."""
        return [(number, size, boxes) for size, (number, boxes) in self._filling.items()]


# Should two images share an id, the first one counts.
_WITH_IMAGE = (
    "annotation JOIN image ON image.position = (SELECT MIN(position) FROM image WHERE id = annotation.image_id)"
)


def _plan_batches(journal: Journal, batch: int) -> None:
    """Give every box that is left its batch and its slot there, pictures in order."""
    rows = journal.execute(
        f"SELECT annotation.seq, position, width, height, x, y, w, h FROM {_WITH_IMAGE} "
        "WHERE NOT EXISTS (SELECT 1 FROM result WHERE seq = annotation.seq) ORDER BY position, annotation.seq"
    )
    batches, place = Batches(batch), 0
    while page := rows.fetchmany(ROWS):
        planned: list[Box] = []
        outside: list[Result] = []
        least: dict[int, float] = {}
        for seq, position, width, height, x, y, w, h in page:
            clipped = clip_box((x, y, x + w, y + h), width, height)
            if clipped is None:
                outside.append(Result(seq, None, None, OUTSIDE, f"the picture is {width}x{height}"))
                continue
            shorter = min(clipped[2] - clipped[0], clipped[3] - clipped[1])
            least[position] = min(shorter, least.get(position, shorter))
            planned.append(Box(place, seq, position, *clipped, *batches.add(clipped)))
            place += 1
        journal.insert("box", planned)
        journal.update(
            "UPDATE image SET least = MIN(?1, COALESCE(least, ?1)) WHERE position = ?2",
            ((side, position) for position, side in least.items()),
        )
        journal.insert("result", outside)
        journal.insert("batch", batches.full())
    journal.insert("batch", batches.rest())
