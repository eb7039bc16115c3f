"""Finds the pictures of a plan: each record's file, its size where the document leaves it open, resized ones."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import REGULAR, file_kind
from mal_trt.base.places import places
from mal_trt.base.remote import is_url
from mal_trt.formats.images import EACH, ImageProblem, ImageSource
from mal_trt.formats.picture_problem import AMBIGUOUS, MISSING, UNREADABLE
from mal_trt.geometry.rescale import one_factor, scaled_record
from mal_trt.labelling.journal import Journal

ROWS = 1000  # rows per statement
LOST = (MISSING, UNREADABLE)  # what pictures are when the disk that they are on has gone
_WANTED = "reason IS NULL AND EXISTS (SELECT 1 FROM annotation WHERE image_id = image.id)"


def find_pictures(journal: Journal, source: ImageSource, rescale: bool = False, look: bool = True) -> int:
    """Give every image record with boxes its picture, or the reason why it has none.

    rescale: a picture whose size differs from the document's by one factor is taken as it is, and its boxes are scaled.
    look: see `write_plan`.
    Returns how many pictures were found under another name than the document's.
    """
    position = -1
    wanted = _WANTED if look else f"{_WANTED} AND (file_name IS NULL OR width IS NULL)"
    called: dict[str, dict[str, int]] = defaultdict(dict)  # stored names that records of another name claim
    while rows := journal.execute(
        f"SELECT position, id, file_name, width, height FROM image WHERE position > ? AND {wanted} "
        "ORDER BY position LIMIT ?",
        (position, ROWS),
    ).fetchall():
        for position, key, name, width, height in rows:
            try:
                # A name of the document stays: outputs are called by it.
                stored = source.find_id(key) if name is None else source.find(name)
                if name is None or width is None:
                    name = name or stored
                    width, height = source.size(stored)
                elif rescale:
                    width, height = _rescaled(journal, source, position, stored, (width, height))
                found: tuple[Any, ...] = (name, width, height, None, None)
                if name in source.renamed:
                    called[stored][name] = position
            except ImageProblem as problem:
                found = (name, width, height, problem.reason, problem.detail)
            journal.execute(
                "UPDATE image SET file_name=?, width=?, height=?, reason=?, detail=? WHERE position=?",
                (*found, position),
            )
    _doubted(journal, source, called)
    return len(source.renamed)


def check_there(journal: Journal, images: str | Path) -> None:
    """RunError if planned pictures could not be read because the place of all pictures is gone by now. Their batches
    are pending again, so that a resumed run reads them."""
    boxes = journal.boxes
    failed = f"SELECT batch FROM {boxes} JOIN result USING(seq) WHERE reason IN (?,?)"
    if journal.execute(f"{failed} LIMIT 1", LOST).fetchone() is None or not gone(images):
        return
    # Whole batches, since that is what a run goes on with.
    journal.execute(f"DELETE FROM result WHERE seq IN (SELECT seq FROM {boxes} WHERE batch IN ({failed}))", LOST)
    raise RunError(
        f"{images}: was there when the run began, and is gone or empty now (a disk or network folder that dropped?); "
        "what was labelled before is kept: bring it back and run again with --resume"
    )


def gone(images: str | Path) -> bool:
    """Whether a place of pictures on a disk is not there, cannot be looked at, or is an empty folder."""
    if is_url(images) or str(images) == EACH:
        return False
    try:
        return not all(_is_there(place) for place in places(images))
    except (InputError, OSError):
        return True


def _is_there(place: str) -> bool:
    kind = file_kind(place)
    if kind == "a folder":
        with os.scandir(place) as entries:
            return next(entries, None) is not None
    return kind == REGULAR


def _doubted(journal: Journal, source: ImageSource, called: dict[str, dict[str, int]]) -> None:
    """One picture cannot be meant by two names: those that are not its own get a reason."""
    if not called:
        return
    owners: dict[str, str] = {}
    for (name,) in journal.execute(f"SELECT file_name FROM image WHERE {_WANTED}"):
        if name not in source.renamed and (stored := source.find(name)) in called:
            owners[stored] = name
    for stored, names in called.items():
        if len(names) < 2 and stored not in owners:
            continue
        claims = ", ".join([*([owners[stored]] if stored in owners else []), *sorted(names)][:3])
        for name in names:
            journal.execute(
                "UPDATE image SET reason=?, detail=? WHERE file_name=?",
                (AMBIGUOUS, f"{stored} would be the picture of {claims}", name),
            )


def _rescaled(
    journal: Journal, source: ImageSource, position: int, stored: str, said: tuple[int, int]
) -> tuple[int, int]:
    """The picture's own size, its records made to fit, where one factor explains it; else what the document says."""
    size = source.size(stored)
    if size == said or not one_factor(said, size):
        return said
    fx, fy = size[0] / said[0], size[1] / said[1]
    image, text = journal.execute("SELECT id, record FROM image WHERE position=?", (position,)).fetchone()
    journal.execute(
        "UPDATE image SET record=? WHERE position=?",
        (json.dumps({**json.loads(text or "{}"), "width": size[0], "height": size[1]}), position),
    )
    rows = journal.execute("SELECT seq, x, y, w, h, record FROM annotation WHERE image_id=? AND x NOT NULL", (image,))
    for seq, x, y, w, h, record in rows.fetchall():
        journal.execute(
            "UPDATE annotation SET x=?, y=?, w=?, h=?, record=? WHERE seq=?",
            (x * fx, y * fy, w * fx, h * fy, json.dumps(scaled_record(json.loads(record), fx, fy)), seq),
        )
    return size
