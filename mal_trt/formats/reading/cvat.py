"""CVAT's XML 1.1: `<image>` elements with boxes and polygons, or `<track>` elements of a video's frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Builder, ReadResult, around, corners, polygon
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.formats.reading.places import split_name
from mal_trt.formats.reading.xml_elements import elements
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle

ROOT = "annotations"
SIDES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat(files: list[Path], images: ImageSource, split: str | None = None) -> ReadResult:
    """The document of CVAT files. split: the images of a subset alone. A rotated box is refused by name, points and
    lines too; what a track marks as outside the picture is no box of that frame."""
    build = Builder(images)
    frames: dict[int, int] = {}
    subsets: set[str] = set()
    for file in files:
        size: tuple[int, int] | None = None
        for element in elements(file, frozenset(("image", "track", "meta"))):
            try:
                if element.tag == "meta":
                    size = size_of(
                        element.findtext(".//original_size/width"), element.findtext(".//original_size/height")
                    )
                elif element.tag == "image":
                    subset = split_name(element.get("subset") or "")
                    subsets.add(subset)
                    if split is None or subset == split_name(split):
                        _image(build, element)
                elif element.tag == "track":
                    _track(build, frames, element, size)
                elif element.tag != ROOT:
                    raise ValueError(f"its root is <{element.tag}>, not <{ROOT}>")
            except (ValueError, OverflowError) as error:
                raise InputError(f"{file}: not a CVAT annotation ({error})") from None
    if split is not None and split_name(split) not in subsets:
        there = ", ".join(sorted(filter(None, subsets))) or "none"
        raise InputError(f"{files[0]}: no split {split}; its subsets: {there}")
    return build.finish()


def _image(build: Builder, element: Element) -> None:
    name = element.get("name") or ""
    if not name:
        raise ValueError(f"image {element.get('id')} has no name")
    picture = build.picture(build.locate(name), size_of(element.get("width"), element.get("height")))
    for shape in element:
        _shape(build, picture, shape, shape.get("label") or "")


def _track(build: Builder, frames: dict[int, int], track: Element, size: tuple[int, int] | None) -> None:
    for shape in track:
        frame = int(shape.get("frame") or 0)
        if shape.get("outside") == "1":
            build.aside["boxes of tracks lie outside their frame and were left out"] += 1
            continue
        if frame not in frames:
            frames[frame] = build.picture(_frame_name(build, frame), size)
        _shape(build, frames[frame], shape, track.get("label") or "")


def _frame_name(build: Builder, frame: int) -> str:
    """The picture of a video's frame, by the name CVAT exports it under, or by its number."""
    name = f"frame_{frame:06d}"
    found = build.locate(name)
    if found == name:
        try:
            return build.images.find_id(frame)
        except ImageProblem:
            return name
    return found


def _shape(build: Builder, picture: int, shape: Element, kind: str) -> None:
    if shape.tag == "box":
        if float(shape.get("rotation") or 0) % 180:
            build.refuse(picture, kind, "rotated rectangle")
            return
        values = [float(shape.get(side) or "nan") for side in SIDES]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"a box of {kind!r} lacks a side or has a bad one")
        build.box(picture, kind, corners(*values))
    elif shape.tag == "polygon":
        points = [
            [float(v) for v in pair.split(",")] for pair in (shape.get("points") or "").split(";") if pair.strip()
        ]
        if len(points) < 3 or any(len(p) != 2 or not all(map(math.isfinite, p)) for p in points):
            raise ValueError(f"a polygon of {kind!r} has bad points")
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        build.box(picture, kind, around(xs, ys), segmentation=[polygon(xs, ys)])
    elif shape.tag == "mask":
        left, top, width, height = (float(shape.get(side) or "nan") for side in ("left", "top", "width", "height"))
        if not all(map(math.isfinite, (left, top, width, height))):
            raise ValueError(f"a mask of {kind!r} lacks a side")
        build.box(picture, kind, [left, top, width, height], **_mask(build, picture, shape))
    elif shape.tag != "tag":  # which belongs to the whole picture
        build.refuse(picture, kind, f"a {shape.tag} is no box")


def _mask(build: Builder, picture: int, shape: Element) -> dict[str, Any]:
    """The segmentation of a <mask>: run lengths along the rows of its window, background first."""
    width, height = build.size(picture)
    if not shape.get("rle") or not width:
        return {}
    left, top, columns, rows = (int(float(shape.get(side) or 0)) for side in ("left", "top", "width", "height"))
    # CVAT cuts masks at the picture's edge; a window far larger is an error that would take all memory.
    if not (0 <= columns <= 2 * width and 0 <= rows <= 2 * height):
        raise ValueError(f"a mask of {columns}x{rows} pixels in a picture of {width}x{height}")
    runs = np.array([int(word) for word in str(shape.get("rle")).split(",")])
    if (runs < 0).any() or sum(runs.tolist()) != columns * rows:
        raise ValueError(f"a mask whose rle does not fill its {columns}x{rows} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rows, columns)
    return {"segmentation": encode_rle(LocalMask(left, top, values), height, width)}
