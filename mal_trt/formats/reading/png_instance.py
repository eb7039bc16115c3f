"""`png-instance`, as mal-trt writes it: pictures whose values are objects, and `instances.csv`, which says what each
value is."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Builder, ReadResult, corners
from mal_trt.formats.reading.drawn import drawn_values, region_rle, regions_of
from mal_trt.formats.reading.text import read_text

COLUMNS = {"file", "value", "image", "category"}
HIDDEN = "no pixel of it is drawn, other masks hide it"


def is_instances_csv(header: Sequence[str]) -> bool:
    """Whether the columns are those of instances.csv."""
    return {name.strip() for name in header} >= COLUMNS


def read_png_instance(files: list[Path], images: ImageSource) -> ReadResult:
    """The document of instances.csv files: each object's visible pixels, and the box around them."""
    build = Builder(images)
    for table in files:
        drawings: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for line, row in enumerate(csv.DictReader(io.StringIO(read_text(table))), 2):
            if None in row.values() or not row.keys() >= COLUMNS or not row["value"].strip().isdecimal():
                raise InputError(f"{table}:{line}: not a row of file, value, image and category")
            drawings.setdefault(row["file"], []).append((line, row))
        for name, rows in drawings.items():
            line, first = rows[0]
            values = _values(table.parent, name, f"{table}:{line}")
            height, width = values.shape
            picture = build.picture(build.locate(first["image"]), (width, height))
            regions = {one.value: one for one in regions_of(values)}
            for _, row in rows:
                region = regions.get(int(row["value"]))
                if region is None:
                    build.refuse(picture, row["category"], HIDDEN)
                else:
                    rle = region_rle(values, region)
                    build.box(picture, row["category"], corners(*map(float, region.window)), segmentation=rle)
    return build.finish()


def _values(folder: Path, name: str, where: str) -> np.ndarray:
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        raise InputError(f"{where}: {name!r} leads out of its folder")
    try:
        return drawn_values(folder / name)
    except ImageProblem as problem:
        raise InputError(f"{where}: {name}: {problem}") from None
