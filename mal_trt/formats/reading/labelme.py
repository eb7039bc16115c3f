"""LabelMe: a .json file a picture with `shapes`; rectangles, and other shapes by the box around them. Polygons and
masks of one label and one `group_id` are the parts of one object, as for LabelMe's own converters."""

from __future__ import annotations

import base64
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.pixels import read_values
from mal_trt.formats.reading.build import Builder, Document, ReadResult, among, around
from mal_trt.formats.reading.coco import finite, load_json, number
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.geometry.fill import painted
from mal_trt.geometry.local_mask import LocalMask, bounds
from mal_trt.geometry.rle import encode_rle

AROUND = ("rectangle", "polygon", "circle", "linestrip", "mask", "rotation", "quadrilateral")


def read_labelme(files: list[Path], images: ImageSource) -> ReadResult:
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
        parts: dict[Any, list[_Shape]] = defaultdict(list)
        shapes = [_read(shape, f"{file}: shape {place}", build) for place, shape in enumerate(content["shapes"])]
        for shape in shapes:
            if shape.group is not None:
                parts[shape.group].append(shape)
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
    """kind, name, score: its type, label and score. points: [n,2] x, y in pixels; of a mask the corners of its window.
    group: what the parts of one object have in common."""

    kind: str
    name: str
    points: np.ndarray
    group: tuple[str, str] | None
    score: float | None
    mask: np.ndarray | None = None

    @property
    def drawn(self) -> bool:
        """Whether it has pixels."""
        return self.mask is not None or (self.kind in ("polygon", "quadrilateral") and len(self.points) > 2)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """bool [height, width]. As LabelMe itself fills a polygon, its own line is inside."""
        if self.mask is None:
            return painted([self.points], height, width)
        canvas = np.zeros((height, width), bool)
        (x0, y0), (x1, y1) = self.points.astype(int).tolist()
        left, top = max(0, -x0), max(0, -y0)
        window = canvas[y0 + top : max(y1, 0), x0 + left : max(x1, 0)]
        window[:] = self.mask[top:, left:][: window.shape[0], : window.shape[1]]
        return canvas


def _read(shape: Any, where: str, build: Builder) -> _Shape:
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
    if found.kind == "mask" and shape.get("mask"):
        try:
            found = _with_mask(found, shape["mask"])
        except (ValueError, TypeError, ImageProblem):
            build.aside["masks cannot be read and count as boxes"] += 1
    return found if found.drawn else replace(found, group=None)


def _with_mask(shape: _Shape, packed: Any) -> _Shape:
    """The shape with its mask: a picture in base64 of the window whose first and last pixel the two points are."""
    covered = read_values(io.BytesIO(base64.b64decode(packed))) != 0
    x0, y0 = np.floor(shape.points.min(axis=0)).astype(int).tolist()
    columns, rows = (np.floor(shape.points.max(axis=0)).astype(int) - (x0, y0) + 1).tolist()
    inner = bounds(covered)
    if inner is None or abs(covered.shape[0] - rows) > 1 or abs(covered.shape[1] - columns) > 1:
        raise ValueError("a mask without a pixel, or not of its window's size")
    left, top, right, bottom = inner
    points = np.array([[x0 + left, y0 + top], [x0 + right, y0 + bottom]], np.float64)
    return replace(shape, points=points, mask=covered[top:bottom, left:right])


def _add(build: Builder, picture: int, shape: _Shape, parts: Sequence[_Shape]) -> None:
    """parts: what belongs to it besides itself."""
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
        more: Document = {}
        if shape.drawn and width:
            mask = np.logical_or.reduce([part.pixels(height, width) for part in (shape, *parts)])
            more["segmentation"] = encode_rle(LocalMask(0, 0, mask), height, width)
        if shape.score is not None:
            more["score"] = shape.score
        corners = np.concatenate([part.points for part in (shape, *parts)])
        build.box(picture, name, around(*corners.T.tolist()), **more)
