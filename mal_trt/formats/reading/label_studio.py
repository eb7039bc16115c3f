"""Label Studio's JSON export: tasks with rectangles, polygons and brushes. JSON-MIN too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.formats.reading.brush import brush_mask
from mal_trt.formats.reading.build import Builder, ReadResult, around, corners, polygon
from mal_trt.formats.reading.coco import finite, load_json, number
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.geometry.local_mask import LocalMask, bounds
from mal_trt.geometry.rle import encode_rle

KEYS = ("image", "img", "picture", "photo", "url")
RESULTS = ("annotations", "completions", "predictions")
# What Label Studio puts before the name of a file that was uploaded.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
# What says where a region is. Every result of a region repeats it, a choice that somebody made for it too.
GEOMETRY = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY", "points", "rle")
NO_SHAPE = ("choices", "textarea", "rating", "number", "taxonomy", "pairwise", "relation", "labels", "datetime")


def read_label_studio(files: list[Path], images: ImageSource) -> ReadResult:
    """The document of Label Studio exports. Of several annotations of a task the first that was not cancelled counts, a
    ground truth before it. Rotated rectangles are refused by name."""
    build = Builder(images)
    for file in files:
        tasks = load_json(file)
        if not isinstance(tasks, list):
            tasks = [tasks]
        for place, task in enumerate(tasks):
            where = f"{file}: task {place}"
            if not isinstance(task, dict):
                raise InputError(f"{where} is no object; expected a task of Label Studio's")
            name = _picture_name(task, where)
            regions = _joined(_regions(build, task, where))
            sizes = (size_of(r.get("original_width"), r.get("original_height")) for r in regions)
            picture = build.picture(_located(build, name), next((size for size in sizes if size), None))
            for region in regions:
                _add(build, picture, region, where)
    return build.finish()


def _picture_name(task: dict[str, Any], where: str) -> str:
    data = task["data"] if isinstance(task.get("data"), dict) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    chosen = next((texts[key] for key in KEYS if key in texts), None)
    chosen = chosen or next((text for text in texts.values() if has_picture_ending(_path(text))), None)
    if not chosen:
        raise InputError(f"{where} does not say its picture; expected `data` with `image`")
    return _path(chosen)


def _path(text: str) -> str:
    """The path of a picture's address; /data/local-files/?d= says it behind the question mark."""
    parts = urlsplit(text) if "?" in text or "://" in text else None
    if parts is None:
        return text
    asked = parse_qs(parts.query).get("d")
    return asked[0] if asked else unquote(parts.path)


def _located(build: Builder, name: str) -> str:
    found = build.locate(name)
    path = PurePosixPath(name)
    if found == name and _UPLOAD.match(path.name):
        short = str(path.with_name(_UPLOAD.sub("", path.name)))
        other = build.locate(short)
        return other if other != short or build.has(short) else name
    return found


def _regions(build: Builder, task: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    if isinstance(task.get("data"), dict):
        results: list[Any] = next((task[key] for key in RESULTS if isinstance(task.get(key), list) and task[key]), [])
        good = [r for r in results if isinstance(r, dict) and not (r.get("was_cancelled") or r.get("skipped"))]
        good.sort(key=lambda r: not r.get("ground_truth"))
        if len(good) > 1:
            build.aside["tasks have several annotations, of which one was taken"] += 1
        found = good[0].get("result") if good else []
    else:  # JSON-MIN: regions under the name that the labelling interface gives them
        found = next((v for v in task.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
    for region in found if isinstance(found, list) else []:
        if not isinstance(region, dict):
            raise InputError(f"{where}: a region is no object")
        yield region


def _joined(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results as they come, those of one region as one: the shape's, with the labels of them all."""
    regions: dict[Any, dict[str, Any]] = {}
    for place, result in enumerate(results):
        key: Any = place
        if "id" in result:  # ids made by hand may say the same of several boxes
            value = _value(result)
            key = repr((result["id"], [value.get(name) for name in GEOMETRY]))
        if (other := regions.get(key)) is not None:
            first, second = (result, other) if other.get("type") in NO_SHAPE else (other, result)
            result = {**second, **first, "value": {**_value(second), **_value(first)}}
        regions[key] = result
    return list(regions.values())


def _value(result: dict[str, Any]) -> dict[str, Any]:
    return result["value"] if isinstance(result.get("value"), dict) else result


def _add(build: Builder, picture: int, region: dict[str, Any], where: str) -> None:
    value = _value(region)
    what = str(region.get("type") or "")
    if what in NO_SHAPE and what != "labels":
        return
    kind = _label(value)
    points = value.get("points")
    width, height = (side or 1 for side in build.size(picture))
    score = finite(region.get("score"))
    more = {} if score is None else {"score": score}
    if "rle" in value:
        _add_brush(build, picture, kind, value["rle"], more)
    elif isinstance(points, list) and len(points) > 2:
        flat = [_finite(v, where) for pair in points if isinstance(pair, list) and len(pair) == 2 for v in pair]
        xs, ys = [v * width / 100 for v in flat[0::2]], [v * height / 100 for v in flat[1::2]]
        if len(xs) < 3:
            raise InputError(f"{where}: a polygon has fewer than three points")
        build.box(picture, kind, around(xs, ys), segmentation=[polygon(xs, ys)], **more)
    elif {"x", "y", "width", "height"} <= value.keys():
        turned = number(value.get("rotation")) or 0
        if turned % 180:
            build.refuse(picture, kind, "rotated rectangle")
            return
        x, y, w, h = (_finite(value[key], where) / 100 for key in ("x", "y", "width", "height"))
        if turned % 360:  # by half a turn about its corner
            x, y = x - w, y - h
        build.box(picture, kind, [x * width, y * height, w * width, h * height], **more)
    elif {"x", "y", "radiusX", "radiusY"} <= value.keys():
        x, y, rx, ry = (_finite(value[key], where) / 100 for key in ("x", "y", "radiusX", "radiusY"))
        build.box(picture, kind, [(x - rx) * width, (y - ry) * height, 2 * rx * width, 2 * ry * height], **more)
    elif what and what not in NO_SHAPE:
        build.refuse(picture, kind, f"a {what.removesuffix('labels')} is no box")


def _add_brush(build: Builder, picture: int, kind: str, packed: Any, more: dict[str, Any]) -> None:
    width, height = build.size(picture)
    try:
        mask = brush_mask(packed, width, height)
    except ValueError as error:
        build.refuse(picture, kind, f"a brush that cannot be read: {error}")
        return
    window = bounds(mask)
    if window is None:
        build.refuse(picture, kind, "a brush without a pixel")
        return
    rle = encode_rle(LocalMask(0, 0, mask), height, width)
    build.box(picture, kind, corners(*window), segmentation=rle, **more)


def _label(value: dict[str, Any]) -> str:
    """The first of a region's labels, under whatever kind of labels it has them."""
    for key, labels in value.items():
        if key.endswith("labels") and isinstance(labels, list) and labels:
            return str(labels[0])
    return "object"


def _finite(value: Any, where: str) -> float:
    found = finite(value)
    if found is None:
        raise InputError(f"{where}: a region has {str(value)[:40]!r} where a number is expected")
    return found
