"""Points that somebody said belong to an object, or not: how many of them masks get right.

A few points on ears, hands and handles show what a mean IoU hides: that a mask leaves out a whole part. They need no
drawn mask, which `metrics` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.base.files import read_json
from mal_trt.formats.ids import identity
from mal_trt.geometry.rle import RLE, decode_rle

FORM = '{"points": [{"annotation_id": 1, "inside": [[x, y], ...], "outside": [[x, y], ...]}]}'

KEY = "annotation_id"
SIDES = "inside", "outside"

Point = tuple[float, float]


@dataclass(frozen=True)
class ObjectPoints:
    """Points of one object, x and y in pixels of its picture: those that belong to it and those that do not."""

    inside: tuple[Point, ...]
    outside: tuple[Point, ...]


def read_points(path: Path) -> dict[Any, ObjectPoints]:
    """Points by annotation id. InputError says what is wrong with a file that cannot be used."""
    document = read_json(path)
    records = document.get("points") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: no list of points; expected {FORM}")
    found: dict[Any, ObjectPoints] = {}
    for index, record in enumerate(records):
        where = f"{path}: points[{index}]"
        key = identity(record.get(KEY)) if isinstance(record, dict) else None
        if key is None:
            raise InputError(f"{where} has no {KEY}; expected {FORM}")
        if unknown := [name for name in record if name not in (KEY, *SIDES)]:
            raise InputError(
                f"{where}, annotation {key!r}: the key {unknown[0]!r} means nothing here; expected {', '.join(SIDES)}"
            )
        if key in found:
            raise InputError(f"{where}: a second entry for annotation {key!r}; put its points into one")
        points = ObjectPoints(*(_read_side(record, side, f"{where}, annotation {key!r}") for side in SIDES))
        if not points.inside and not points.outside:
            raise InputError(f"{where}, annotation {key!r}: no point inside or outside")
        found[key] = points
    return found


def _read_side(record: dict[str, Any], side: str, where: str) -> tuple[Point, ...]:
    values = record.get(side, [])
    if not isinstance(values, list) or not all(_is_point(value) for value in values):
        raise InputError(f"{where}: {side} is not a list of [x, y] pairs of numbers, zero or more")
    return tuple((value[0], value[1]) for value in values)


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= 0 for v in value)
    )


def hits(mask: RLE, points: tuple[Point, ...]) -> int:
    """How many points are on pixels of a mask. ValueError for one that is not in its picture."""
    height, width = mask["size"]
    local = decode_rle(mask)
    rows, columns = local.mask.shape
    count = 0
    for px, py in points:
        if px >= width or py >= height:
            raise ValueError(f"the point [{px}, {py}] is not in its picture of {width}x{height} pixels")
        x, y = int(px) - local.x0, int(py) - local.y0
        count += 0 <= x < columns and 0 <= y < rows and bool(local.mask[y, x])
    return count


def score_points(
    points: Mapping[Any, ObjectPoints], masks: Mapping[Any, RLE], names: Mapping[Any, str]
) -> dict[str, Any]:
    """The share of points that masks get right, as JSON-ready values.

    masks: by annotation id; of an object that has none, no point is right. names: class names by annotation id.
    Returns `right`, the share of all points; `inside` and `outside`, the shares of those that belong to their object
    and of those that do not; `worst`, the lowest share of an object; `count`; and `objects`, the worst first, each
    with annotation_id, class, right, inside, outside, labelled. A share of no points is null.
    """
    objects, sums = [], np.zeros((2, 2), int)  # inside and outside: right ones, all
    for key, given in points.items():
        mask = masks.get(key)
        try:
            right = (
                (hits(mask, given.inside), len(given.outside) - hits(mask, given.outside))
                if mask is not None
                else (0, 0)
            )
        except ValueError as error:
            raise InputError(f"points of annotation {key!r}: {error}") from None
        counts = np.array([right, (len(given.inside), len(given.outside))]).T
        sums += counts
        entry = {"annotation_id": key, "class": names.get(key, ""), **_shares(counts), "labelled": mask is not None}
        objects.append(entry)
    objects.sort(key=lambda entry: entry["right"])
    return {
        **_shares(sums),
        "worst": objects[0]["right"] if objects else None,
        "count": int(sums[:, 1].sum()),
        "objects": objects,
    }


def _shares(counts: np.ndarray) -> dict[str, float | None]:
    """counts: int [2,2], inside and outside: right ones, all."""
    rows = {"right": counts.sum(axis=0), "inside": counts[0], "outside": counts[1]}
    return {name: int(right) / int(total) if total else None for name, (right, total) in rows.items()}
