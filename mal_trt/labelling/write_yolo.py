"""A finished run's masks as a YOLO segmentation set: a folder with a .txt for each picture and the class names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from mal_trt.base.errors import RunError
from mal_trt.formats.images import clean_name
from mal_trt.geometry.polygons import one_line, three_points
from mal_trt.geometry.rle import decode_rle
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.write_coco import category_names

CLASSES = "classes.txt"
UNNAMED = "object"


def write_yolo(journal: Journal, out: Path, done: Callable[[int], None] = lambda pictures: None) -> None:
    """The folder `out`, complete or not at all: for each picture lines of `class x y x y ...`, shares of its sides.

    A mask is one line whatever it is made of, see `one_line`: through the centres of its pixels, as tools that train on
    such sets fill it, parts and holes tied together by bridges of no width. A class is its category's place in the
    document, and its name stands in classes.txt. A picture without boxes gets an empty file, which says that nothing is
    in it; one whose boxes were all skipped gets none.

    done: told of each picture. RunError if the disk refuses, or if two pictures would share a file.
    """
    if (out / CLASSES).exists():
        return  # by a run that was killed after this; a folder that has its name is complete
    names = _classes(journal)
    numbers = {key: number for number, key in enumerate(names)}
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    written = {CLASSES: "the class names"}
    try:
        part.mkdir()
        (part / CLASSES).write_text("".join(f"{' '.join(name.split())}\n" for name in names.values()), encoding="utf-8")
        for picture, lines in _pictures(journal, numbers):
            name = str(PurePosixPath(clean_name(picture)).with_suffix(".txt"))
            if written.setdefault(name, picture) != picture:
                raise RunError(
                    f"{out}: {picture} and {written[name]} would share the label file {name}, which YOLO cannot tell "
                    f"apart; run again with --resume --format coco --out {out}"
                )
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            with open(part / name, "a", encoding="utf-8") as file:
                file.writelines(lines)
            done(1)
        os.replace(part, out)
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}); make room and run again with --resume"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _classes(journal: Journal) -> dict[Any, str]:
    """Name of every category, in the document's order; categories that it does not list come last, by their ids."""
    names = dict(category_names(journal))
    used = journal.execute(
        "SELECT DISTINCT category_id FROM annotation JOIN result USING(seq) WHERE rle IS NOT NULL ORDER BY 1"
    ).fetchall()
    for (key,) in used:
        names.setdefault(key, UNNAMED if key is None else str(key))
    return names


def _pictures(journal: Journal, numbers: dict[Any, int]) -> Iterator[tuple[str, Iterator[str]]]:
    """(file name, label lines) of every picture that is labelled or empty."""
    rows = journal.execute(
        "SELECT image, file_name, width, height, category_id, rle FROM box JOIN result USING(seq) "
        "JOIN annotation USING(seq) JOIN image ON image.position = box.image WHERE rle IS NOT NULL ORDER BY place"
    )
    for _, boxes in groupby(rows, lambda row: row[0]):
        objects = list(boxes)
        lines = (_line(numbers[row[4]], json.loads(row[5]), *row[2:4]) for row in objects)
        yield objects[0][1], lines
    for (name,) in journal.execute(
        "SELECT file_name FROM image WHERE reason IS NULL "
        "AND NOT EXISTS (SELECT 1 FROM annotation WHERE image_id = image.id) ORDER BY position"
    ):
        yield name, iter(())


def _line(number: int, rle: dict[str, Any], width: int, height: int) -> str:
    """One object; nothing for an empty mask."""
    local = decode_rle(rle)
    if not local.area:
        return ""
    points, _ = one_line(local.mask)
    shares = (three_points(points) + [[local.x0, local.y0]]) / (width, height)
    return f"{number} {' '.join(f'{value:.6f}' for value in shares.reshape(-1))}\n"
