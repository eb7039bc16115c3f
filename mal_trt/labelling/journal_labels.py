"""A journal's labels as the writers see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from mal_trt.formats.ids import identity, storable
from mal_trt.labelling.journal import Journal
from mal_trt.writers.files import words
from mal_trt.writers.labels import Category, Object, ObjectChunk, Picture

UNNAMED = "object"
TOGETHER = 256  # objects read at once
OBJECT = "record, category_id, x0, y0, x1, y1, rle, area, quality"


class JournalLabels:
    """See `LabelSet`. The journal must stay open."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        journal.execute("CREATE INDEX IF NOT EXISTS box_seq ON box(seq)")

    @cached_property
    def categories(self) -> dict[Any, Category]:
        names = category_names(self._journal)
        used = self._journal.execute(
            "SELECT DISTINCT category_id FROM annotation JOIN result USING(seq) WHERE rle IS NOT NULL ORDER BY 1"
        ).fetchall()
        for (key,) in used:
            names.setdefault(key, UNNAMED if key is None else str(key))
        return {key: Category(key, number, name) for number, (key, name) in enumerate(names.items())}

    def pictures(self) -> Iterator[Picture]:
        """Records that name one file are one picture, in the place of the first of them."""
        for position, rows in by_picture(self._journal, OBJECT):
            yield Picture(*self._journal.picture(position), self._objects(rows))
        for name, width, height in self._journal.execute(
            "SELECT file_name, width, height FROM image WHERE reason IS NULL AND width IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM annotation WHERE image_id = image.id) "
            # Nobody looked whether the size of a record without boxes is right, so here the name alone counts.
            "AND NOT EXISTS (SELECT 1 FROM image AS twin "
            "WHERE twin.file_name = image.file_name AND twin.file_name != '' "
            "AND (twin.position < image.position AND twin.width IS NOT NULL "
            "OR EXISTS (SELECT 1 FROM annotation WHERE image_id = twin.id))) "
            "ORDER BY position"
        ):
            yield Picture(name, width, height, [])

    def objects(self) -> Iterator[Object]:
        rows = self._journal.execute(
            f"SELECT {OBJECT} FROM annotation JOIN result USING(seq) JOIN box USING(seq) "
            "WHERE rle IS NOT NULL ORDER BY annotation.seq"
        )
        while page := rows.fetchmany(TOGETHER):
            yield from self._objects(page)

    def pieces(self) -> list[tuple[str, str | None]]:
        return self._journal.parts()

    def image_records(self) -> Iterator[str]:
        return (image.record for image in self._journal.images())

    def _objects(self, rows: Sequence[Any]) -> list[Object]:
        records, categories, x0, y0, x1, y1, texts, areas, qualities = zip(*rows, strict=True)
        chunk = ObjectChunk([json.loads(text) for text in texts], areas, list(zip(x0, y0, x1, y1, strict=True)))
        return [
            Object(json.loads(record), self.categories[category], box, rle, area, quality, chunk, at)
            for at, (record, category, box, rle, area, quality) in enumerate(
                zip(records, categories, chunk.boxes, chunk.rles, areas, qualities, strict=True)
            )
        ]


class Outcome(NamedTuple):
    """What became of a record. Ids as in `identity`; the picture's name and sides are None if it is unknown, what
    belongs to a mask if there is none, reason and detail if there is one. x0..y1: float, clipped, picture pixels."""

    record: str
    id: Any
    image_id: Any
    category_id: Any
    file_name: str | None
    width: int | None
    height: int | None
    x0: Any
    y0: Any
    x1: Any
    y1: Any
    rle: str | None
    area: int | None
    quality: float | None
    reason: str | None
    detail: str | None


def outcomes(journal: Journal) -> Iterator[Outcome]:
    """All records that have a result, in the order of the document."""
    return map(
        Outcome._make,
        journal.execute(
            "SELECT annotation.record, annotation.id, annotation.image_id, annotation.category_id, image.file_name, "
            "image.width, image.height, x0, y0, x1, y1, rle, area, quality, result.reason, result.detail "
            "FROM annotation JOIN result USING(seq) LEFT JOIN box USING(seq) LEFT JOIN image "
            "ON image.position = (SELECT MIN(position) FROM image WHERE id = annotation.image_id) "
            "ORDER BY annotation.seq"
        ),
    )


def by_picture(journal: Journal, columns: str) -> Iterator[tuple[int, list[Any]]]:
    """The position of each picture with masks, and the wanted columns of its boxes; records that name one file are one
    picture, in the place of the first of them."""
    labelled = (
        f"SELECT image, {columns} FROM box JOIN result USING(seq) JOIN annotation USING(seq) WHERE rle IS NOT NULL"
    )
    all_twins, done = _twins(journal), set[int]()
    for position, boxes in groupby(journal.execute(f"{labelled} ORDER BY place"), lambda row: row[0]):
        if position in done:
            continue
        rows = list(boxes)
        for twin in all_twins.get(position, ()):
            if twin > position:  # those before it have no mask
                rows += journal.execute(f"{labelled} AND image = ? ORDER BY place", (twin,))
                done.add(twin)
        yield position, [row[1:] for row in rows]


def _twins(journal: Journal) -> dict[int, list[int]]:
    """The places of records that name one file, by each of these places; nothing of files that are named once."""
    journal.execute("CREATE INDEX IF NOT EXISTS image_file ON image(file_name, width, height)")
    groups = journal.execute(
        "SELECT GROUP_CONCAT(position) FROM image WHERE file_name != '' AND width IS NOT NULL "
        "GROUP BY file_name, width, height HAVING COUNT(*) > 1"
    )
    twins = {place: places for (text,) in groups for places in [sorted(map(int, text.split(",")))] for place in places}
    if twins:
        journal.execute("CREATE INDEX IF NOT EXISTS box_image ON box(image)")
    return twins


def category_names(journal: Journal) -> dict[Any, str]:
    """Names of a document's categories by their ids, in its order; one without a name is called as its id."""
    row = journal.execute("SELECT value FROM part WHERE key='categories'").fetchone()
    categories = json.loads(row[0]) if row else []
    if not isinstance(categories, list):
        return {}
    entries = [(identity(c.get("id")), c.get("name")) for c in categories if isinstance(c, dict)]
    return {key: _name(name) or str(key) for key, name in entries if key is not None}


def _name(given: Any) -> str:
    """A category's name as text that can be written; empty if it has none."""
    name = "" if given is None else storable(str(given))
    return name if words(name) else ""
