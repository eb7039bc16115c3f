"""LabelMe: a .json file a picture with `shapes`; rectangles, and other shapes by the box around them."""

from __future__ import annotations

import math
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
        for place, shape in enumerate(content["shapes"]):
            _add(build, picture, shape, f"{file}: shape {place}")
    read = build.finish()
    if stray:
        read.notes.append(f"{len(stray):,} .json files are no LabelMe files and were passed over ({among(stray)})")
    return read


def is_labelme(content: Any) -> bool:
    """Whether a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def _add(build: Builder, picture: int, shape: Any, where: str) -> None:
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        raise InputError(f"{where} has no list of points")
    kind = str(shape.get("shape_type") or "polygon")
    name = str(shape.get("label") or "")
    pairs = [p if isinstance(p, list) and len(p) == 2 else [None, None] for p in shape["points"]]
    values = [number(v) for pair in pairs for v in pair]
    numbers = [v for v in values if v is not None and math.isfinite(v)]
    if len(numbers) != len(values):
        raise InputError(f"{where} has a point that is not two numbers")
    xs, ys = numbers[0::2], numbers[1::2]
    if kind not in AROUND:
        build.refuse(picture, name, f"a {kind} is no box")
    elif len(xs) < 2:
        build.refuse(picture, name, f"{kind} with fewer than two points")
    elif kind == "circle":
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        build.box(picture, name, [xs[0] - radius, ys[0] - radius, 2 * radius, 2 * radius])
    else:
        drawn = kind in ("polygon", "quadrilateral") and len(xs) > 2
        width, height = build.size(picture)
        # As LabelMe itself fills a polygon, its own line is inside.
        mask = painted_rle(np.array([xs, ys]).T, height, width) if drawn and width else None
        more: Document = {"segmentation": mask} if mask else {}
        score = finite(shape.get("score"))
        build.box(picture, name, around(xs, ys), **more, **({} if score is None else {"score": score}))
