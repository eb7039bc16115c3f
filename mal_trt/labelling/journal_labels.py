"""A journal's labels as the writers see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from mal_trt.labelling.journal import Journal
from mal_trt.writers.labels import Category, Object, Picture, Together

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
        rows = self._journal.execute(
            f"SELECT image, {OBJECT} FROM box JOIN result USING(seq) JOIN annotation USING(seq) "
            "WHERE rle IS NOT NULL ORDER BY place"
        )
        for position, boxes in groupby(rows, lambda row: row[0]):
            yield Picture(*self._journal.picture(position), self._objects([row[1:] for row in boxes]))
        for name, width, height in self._journal.execute(
            "SELECT file_name, width, height FROM image WHERE reason IS NULL AND width IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM annotation WHERE image_id = image.id) ORDER BY position"
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
        return self._journal.execute("SELECT key, value FROM part ORDER BY position").fetchall()

    def image_records(self) -> Iterator[str]:
        return (record for (record,) in self._journal.execute("SELECT record FROM image ORDER BY position"))

    def _objects(self, rows: Sequence[Any]) -> list[Object]:
        records, categories, x0, y0, x1, y1, texts, areas, qualities = zip(*rows, strict=True)
        together = Together([json.loads(text) for text in texts], areas, list(zip(x0, y0, x1, y1, strict=True)))
        return [
            Object(json.loads(record), self.categories[category], box, rle, area, quality, together, at)
            for at, (record, category, box, rle, area, quality) in enumerate(
                zip(records, categories, together.boxes, together.rles, areas, qualities, strict=True)
            )
        ]


def category_names(journal: Journal) -> dict[Any, str]:
    """Names of a document's categories by their ids, in its order."""
    row = journal.execute("SELECT value FROM part WHERE key='categories'").fetchone()
    categories = json.loads(row[0]) if row else []
    if not isinstance(categories, list):
        return {}
    entries = [c for c in categories if isinstance(c, dict) and isinstance(c.get("id"), (int, str))]
    return {c["id"]: str(c.get("name", "")) for c in entries}
