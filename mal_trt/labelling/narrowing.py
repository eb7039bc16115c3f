"""The second pass of a run: the journal's boxes become those of their masks, and are labelled again."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from mal_trt.labelling.journal import Box, Journal
from mal_trt.labelling.plan import ROWS, Batches
from mal_trt.labelling.second_pass import narrowed

LEAST = (
    "UPDATE image SET least = MIN(least, (SELECT MIN(MIN(x1 - x0, y1 - y0)) FROM narrowed WHERE image = position)) "
    "WHERE position IN (SELECT image FROM narrowed)"
)


def in_passes(journal: Journal, batch: int, second: bool, labelling: Callable[[str], None]) -> None:
    """Label the boxes of a plan, and if `second` those of their masks, in batches of `batch`; what was done is not done
    again.

    labelling: labels what the journal has pending; given the name of the pass.
    """
    if not journal.narrowed:
        labelling("labelling")
        if not second:
            return
        _narrow(journal, batch)
    labelling("second pass")
    _keep_first(journal)


def finished_before(journal: Journal, second: bool) -> int:
    """Boxes that have the mask which they keep, before the run goes on."""
    return 0 if second and not journal.narrowed else journal.count()[0]


def _narrow(journal: Journal, batch: int) -> None:
    """Plan the second pass: for every mask whose box is smaller than its own, keep the result as the first one."""
    with journal.transaction():
        journal.execute("CREATE TABLE narrowed AS SELECT * FROM box WHERE 0")
        (number,) = journal.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM batch").fetchone()
        batches, place = Batches(batch, number), -1
        while rows := journal.execute(
            "SELECT box.*, rle FROM box JOIN result USING(seq) WHERE rle IS NOT NULL AND place > ? "
            "ORDER BY place LIMIT ?",
            (place, ROWS),
        ).fetchall():
            given = [Box(*row[:-1]) for row in rows]
            place = given[-1].place
            boxes, changed = narrowed(np.array([one[3:7] for one in given]), [json.loads(row[-1]) for row in rows])
            own = [(given[at], tuple(boxes[at].tolist())) for at in np.flatnonzero(changed).tolist()]
            journal.insert("narrowed", [(*old[:3], *new, *batches.add(new)) for old, new in own])
            journal.insert("batch", batches.full())
        journal.insert("batch", batches.rest())
        journal.execute("CREATE INDEX narrowed_place ON narrowed(place)")
        journal.execute("CREATE INDEX narrowed_image ON narrowed(image)")
        journal.execute("CREATE TABLE first_result AS SELECT * FROM result WHERE seq IN (SELECT seq FROM narrowed)")
        journal.execute("DELETE FROM result WHERE seq IN (SELECT seq FROM narrowed)")
        journal.execute(LEAST)
        journal.remember("boxes", "narrowed")


def _keep_first(journal: Journal) -> None:
    """Where the second pass found nothing, or failed, the first mask stays."""
    journal.execute(
        "INSERT OR REPLACE INTO result SELECT first_result.* FROM first_result LEFT JOIN result USING(seq) "
        "WHERE result.rle IS NULL OR result.area = 0"
    )
