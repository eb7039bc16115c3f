"""LabelMe: a .json file a picture with `shapes`; rectangles, and other shapes by the box around them. Polygons of one
label and one `group_id` are the parts of one object, as for LabelMe's own converters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.reading.build import Builder, Document, Read, among, around
from mal_trt.formats.reading.coco import finite, load_json, number
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.formats.segmentations import painted_rle

AROUND = ("rectangle", "polygon", "circle", "linestrip", "mask", "rotation", "quadrilateral")


def read_labelme(files: list[Path], images: ImageSource) -> Read:
    """The document of LabelMe files. JSON that holds something else is passed over and counted."""
    build = Builder(images)
    stray: list[str] = []
    for file in files:
        content = load_json(file)
        if not is_labelme(content):
            stray.append(file.name)
            continue
        name = content.get("imagePath")
        size = size_of(content.get("imageWidth"), content.get("imageHeight"))
        picture = build.picture(build.locate(name if isinstance(name, str) else "", file), size)
        parts: dict[Any, list[np.ndarray]] = defaultdict(list)  # [n,2] each, of the objects that have several
        shapes = [_read(shape, f"{file}: shape {place}") for place, shape in enumerate(content["shapes"])]
        for shape in shapes:
            if shape.group is not None:
                parts[shape.group].append(shape.points)
        for shape in shapes:
            if shape.group is None:
                _add(build, picture, shape, ())
            elif shape.group in parts:
                _add(build, picture, shape, parts.pop(shape.group)[1:])
    read = build.finish()
    if stray:
        read.notes.append(f"{len(stray):,} .json files are no LabelMe files and were passed over ({among(stray)})")
    return read


def is_labelme(content: Any) -> bool:
    """Whether a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


@dataclass(frozen=True)
class _Shape:
    """kind, name, score: its type, label and score. points: [n,2] x, y in pixels. group: what the parts of one object
    have in common."""

    kind: str
    name: str
    points: np.ndarray
    group: tuple[str, str] | None
    score: float | None

    @property
    def drawn(self) -> bool:
        """Whether it has a mask."""
        return self.kind in ("polygon", "quadrilateral") and len(self.points) > 2


def _read(shape: Any, where: str) -> _Shape:
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        raise InputError(f"{where} has no list of points")
    pairs = [p if isinstance(p, list) and len(p) == 2 else [None, None] for p in shape["points"]]
    values = [number(v) for pair in pairs for v in pair]
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    if len(numbers) != len(values):
        raise InputError(f"{where} has a point that is not two numbers")
    name, group = str(shape.get("label") or ""), shape.get("group_id")
    found = _Shape(
        str(shape.get("shape_type") or "polygon"),
        name,
        np.array(numbers, np.float64).reshape(-1, 2),
        None if group is None else (name, repr(group)),
        finite(shape.get("score")),
    )
    return found if found.drawn else replace(found, group=None)


def _add(build: Builder, picture: int, shape: _Shape, parts: Sequence[np.ndarray]) -> None:
    """parts: what belongs to it besides its own points."""
    kind, name, points = shape.kind, shape.name, shape.points
    if kind not in AROUND:
        build.refuse(picture, name, f"a {kind} is no box")
    elif len(points) < 2:
        build.refuse(picture, name, f"{kind} with fewer than two points")
    elif kind == "circle":
        (x, y), radius = points[0].tolist(), math.dist(points[0], points[1])
        build.box(picture, name, [x - radius, y - radius, 2 * radius, 2 * radius])
    else:
        width, height = build.size(picture)
        # As LabelMe itself fills a polygon, its own line is inside.
        mask = painted_rle(points, height, width, *parts) if shape.drawn and width else None
        more: Document = {"segmentation": mask} if mask else {}
        if shape.score is not None:
            more["score"] = shape.score
        build.box(picture, name, around(*np.concatenate([points, *parts]).T.tolist()), **more)
