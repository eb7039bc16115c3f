"""Plain causes of what looks wrong in a plan, and what a run that labelled nothing says."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from mal_trt.formats.images import ImageSource
from mal_trt.formats.picture_problem import MISSING, OTHER_SIZE
from mal_trt.labelling.document_rows import UNKNOWN_CATEGORY
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.read_report import read_report
from mal_trt.labelling.second_pass import narrowed

MOST = 0.9  # share of boxes that must agree for a cause to be plain
EXAMPLES = 2
# Share of masks that reach over less than FILLED of their boxes, on seven data sets with the bundled model: at most .45
# where boxes are exact or each side is off by up to a tenth, at least .73 where all sides are a tenth too far out.
FILLED, LOOSE, FEWEST, LOOKED_AT = 0.9, 0.6, 50, 1000


def hints(journal: Journal, rescale: bool) -> Iterator[str]:
    """What the user would want to know before looking at a single mask."""
    yield from _unnamed(journal)
    yield from _corners(journal)
    yield from _counted_from_one(journal)


def _unnamed(journal: Journal) -> Iterator[str]:
    """A list of results whose pictures were looked for by their ids, in vain."""
    pictures, missing = journal.execute(
        "SELECT COUNT(*), SUM(reason=?) FROM image WHERE record IS NULL", (MISSING,)
    ).fetchone()
    if missing:
        yield (
            f"a list of results knows its pictures by their ids alone, and {missing:,} of {pictures:,} are not "
            "found by them: give --image-list, the COCO file that the results are of"
        )


def _corners(journal: Journal) -> Iterator[str]:
    """Boxes written as two corners: most leave their picture, and as corners nearly all would fit."""
    boxes, leaving, fitting = journal.execute(
        "SELECT COUNT(*), SUM(x + w > width + 1 OR y + h > height + 1), "
        "SUM(w > x AND h > y AND w <= width + 1 AND h <= height + 1) "
        "FROM annotation JOIN image ON image.id = annotation.image_id WHERE x NOT NULL AND width NOT NULL"
    ).fetchone()
    if boxes and leaving * 2 > boxes and fitting >= MOST * boxes:
        yield (
            f"{leaving:,} of {boxes:,} boxes leave their picture and would fit as two corners: the file seems to hold "
            "x0, y0, x1, y1 where COCO has x, y, width, height"
        )


def _counted_from_one(journal: Journal) -> Iterator[str]:
    """Classes of boxes that run one above, or below, those of the document."""
    (count,) = journal.execute("SELECT COUNT(*) FROM result WHERE reason=?", (UNKNOWN_CATEGORY,)).fetchone()
    if not count:
        return
    low, high = journal.execute("SELECT MIN(id), MAX(id) FROM category WHERE typeof(id)='integer'").fetchone()
    first, last = journal.execute(
        "SELECT MIN(category_id), MAX(category_id) FROM annotation WHERE typeof(category_id)='integer'"
    ).fetchone()
    if low is None or first is None:
        return
    if (last == high + 1 and first > low) or (first == low - 1 and last < high):
        yield f"boxes have classes {first} to {last}, `categories` {low} to {high}: one of them seems to count from 1"


def resized(journal: Journal) -> str:
    """What to do about pictures of another size, if --rescale would help."""
    from mal_trt.geometry.rescale import one_factor

    rows = journal.execute(
        "SELECT DISTINCT detail FROM result WHERE reason=? AND detail NOT NULL LIMIT 100", (OTHER_SIZE,)
    ).fetchall()
    pairs = [_sizes(detail) for (detail,) in rows]
    if pairs and sum(one_factor(said, size) for size, said in pairs) >= MOST * len(pairs):
        return "the pictures seem to have been resized since the boxes were made: --rescale labels them, boxes scaled"
    return ""


def loose(journal: Journal) -> str:
    """What to do about boxes that their masks do not fill."""
    (count,) = journal.execute("SELECT COUNT(*) FROM box").fetchone()
    rows = journal.execute(
        "SELECT x0, y0, x1, y1, rle FROM box JOIN result USING(seq) WHERE rle IS NOT NULL AND place % ? = 0",
        (max(1, count // LOOKED_AT),),
    ).fetchall()
    if len(rows) < FEWEST:
        return ""
    boxes = np.array([row[:4] for row in rows], np.float64)
    own, _ = narrowed(boxes, [json.loads(row[4]) for row in rows])
    share = float(np.mean(_area(own) < FILLED * _area(boxes)))
    if share <= LOOSE:
        return ""
    return (
        f"{share:.0%} of the masks reach over less than {FILLED:.0%} of their boxes: if the boxes are drawn too large, "
        "--second-pass draws better masks"
    )


def _area(boxes: np.ndarray) -> np.ndarray:
    sides: np.ndarray = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(sides.prod(axis=1))


def nothing_usable(journal: Journal, source: ImageSource, boxes: object, images: object, done: str = "labelled") -> str:
    """What a run that could use no box looked for, what is there, and the likely cause. done: what was not done to the
    boxes, such as "labelled"."""
    skipped = journal.skipped()
    if not skipped:
        return f"{boxes}: no boxes in it, so none was {done}"
    total = sum(skipped.values())
    why = "; ".join(f"{reason}: {count:,}" for reason, count in list(skipped.items())[:3])
    reason = next(iter(skipped))
    row = journal.execute("SELECT detail FROM result WHERE reason=? AND detail NOT NULL LIMIT 1", (reason,)).fetchone()
    found = read_report(journal)
    text = f"{boxes}: not one of its {total:,} boxes could be {done} ({why})"
    if reason == MISSING:
        there = source.examples(EXAMPLES)
        cause = "--images seems to be another folder than the boxes were made for"
        if not there:
            cause = "--images seems to be the wrong folder"
        text += f"; looked for {row[0]!r}, " if row else "; "
        text += f"{images} holds {_pictures(source.count(), there)}; {cause}"
    else:
        text += f"; for example: {row[0]}" if row else ""
    for hint in (resized(journal), *found.notes):
        text += f"; {hint}" if hint else ""
    return text


def _pictures(count: int, examples: list[str]) -> str:
    if not examples:
        return "no picture"
    return f"{count or len(examples):,} pictures such as {' and '.join(map(repr, examples))}"


def _sizes(detail: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of the picture and of the document, from an OTHER_SIZE's detail."""
    size, _, said = detail.partition(", the document says ")
    (a, b), (c, d) = (map(int, text.split("x")) for text in (size, said))
    return (a, b), (c, d)
