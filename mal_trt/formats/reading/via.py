"""VGG Image Annotator: a project, or its regions alone, as JSON or CSV; and JSON projects of version 3."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.reading.build import Builder, ReadResult, around, polygon
from mal_trt.formats.reading.coco import load_json, number
from mal_trt.formats.reading.text import read_text

METADATA = "_via_img_metadata"
CLASS_KEYS = ("class", "label", "name", "type", "category", "object")
COLUMNS = {"filename", "region_shape_attributes", "region_attributes"}
RECTANGLE_3 = 2  # how version 3 numbers its shapes


def read_via(files: list[Path], images: ImageSource) -> ReadResult:
    """The document of VIA files: rectangles, and polygons, circles and ellipses by the box around them. A region's
    class is its attribute `class`, `label`, `name`, `type`, `category` or, without these, its first."""
    build = Builder(images)
    for file in files:
        if file.suffix.lower() == ".csv" or read_text(file).lstrip()[:1] not in ("{", "["):
            _table(build, file)
            continue
        content = load_json(file)
        if isinstance(content, dict) and {"file", "metadata"} <= content.keys():
            _version_3(build, content, file)
            continue
        entries = content.get(METADATA, content) if isinstance(content, dict) else content
        if not isinstance(entries, (dict, list)):
            raise InputError(f"{file}: not a VIA file; its pictures are neither an object nor a list")
        for entry in entries.values() if isinstance(entries, dict) else entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
                raise InputError(f"{file}: not a VIA file; an entry has no `filename`")
            picture = build.picture(build.locate(entry["filename"]))
            regions = entry.get("regions") or []
            if not isinstance(regions, (dict, list)):
                raise InputError(f"{file}: the regions of {entry['filename']} are neither an object nor a list")
            for place, region in enumerate(regions.values() if isinstance(regions, dict) else regions):
                where = f"{file}: region {place} of {entry['filename']}"
                if not isinstance(region, dict):
                    raise InputError(f"{where} is no object")
                _add(build, picture, region.get("shape_attributes"), region.get("region_attributes"), where)
    return build.finish()


def is_via_csv(header: Iterable[str]) -> bool:
    """Whether the columns are those of VIA's CSV export."""
    return {name.strip().lstrip("#") for name in header} >= COLUMNS


def _table(build: Builder, file: Path) -> None:
    rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
    rows.fieldnames = [name.strip().lstrip("#") for name in rows.fieldnames or ()]
    if not is_via_csv(rows.fieldnames):
        raise InputError(f"{file}: not VIA's CSV; expected the columns {', '.join(sorted(COLUMNS))}")
    pictures: dict[str, int] = {}
    for row in rows:
        where = f"{file}:{rows.line_num}"
        name = row.get("filename") or ""
        if name not in pictures:
            pictures[name] = build.picture(build.locate(name))
        try:
            shape, attributes = (
                json.loads(row.get(f"region_{key}") or "{}") for key in ("shape_attributes", "attributes")
            )
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: a region is not JSON ({error})") from None
        if shape:
            _add(build, pictures[name], shape, attributes, where)


def _add(build: Builder, picture: int, shape: Any, attributes: Any, where: str) -> None:
    if not isinstance(shape, dict):
        raise InputError(f"{where} has no `shape_attributes`")
    kind, name = _class(attributes), str(shape.get("name"))

    def values(*keys: str) -> list[float]:
        return [_finite(shape.get(key), f"{where}, `{key}`") for key in keys]

    if name == "rect":
        build.box(picture, kind, values("x", "y", "width", "height"))
    elif name == "circle":
        x, y, r = values("cx", "cy", "r")
        build.box(picture, kind, [x - r, y - r, 2 * r, 2 * r])
    elif name == "ellipse":
        if number(shape.get("theta")):
            build.refuse(picture, kind, "rotated ellipse")
            return
        x, y, rx, ry = values("cx", "cy", "rx", "ry")
        build.box(picture, kind, [x - rx, y - ry, 2 * rx, 2 * ry])
    elif name == "polygon":
        xs, ys = (_finites(shape.get(f"all_points_{axis}"), where) for axis in "xy")
        if len(xs) != len(ys) or len(xs) < 3:
            raise InputError(f"{where}: a polygon needs three points or more, as many x as y")
        build.box(picture, kind, around(xs, ys), segmentation=[polygon(xs, ys)])
    else:
        build.refuse(picture, kind, f"a {name} is no box")


def _version_3(build: Builder, content: dict[str, Any], file: Path) -> None:
    files, views = content["file"], content.get("view") or {}
    if not isinstance(files, dict) or not isinstance(content["metadata"], dict) or not isinstance(views, dict):
        raise InputError(f"{file}: not a VIA file; `file`, `view` and `metadata` must be objects")
    pictures: dict[str, int] = {}
    attributes = content.get("attribute")
    for key, entry in content["metadata"].items():
        where = f"{file}: metadata {key}"
        xy = entry.get("xy") if isinstance(entry, dict) else None
        if not xy:
            continue
        view = views.get(str(entry.get("vid")))
        ids = (view or {}).get("fid_list") if isinstance(view, dict) else None
        number_of_file = str(ids[0] if isinstance(ids, list) and ids else entry.get("vid"))
        record = files.get(number_of_file)
        if not isinstance(record, dict):
            raise InputError(f"{where} belongs to a file that is not listed")
        name = str(record.get("fname") or record.get("src") or "")
        if name not in pictures:
            pictures[name] = build.picture(build.locate(name))
        kind = _class(_spelled(entry.get("av"), attributes if isinstance(attributes, dict) else {}))
        values = _finites(xy, where)
        if values[0] == RECTANGLE_3 and len(values) == 5:
            build.box(pictures[name], kind, values[1:])
        else:
            build.refuse(pictures[name], kind, "a shape other than a rectangle is no box")


def _spelled(values: Any, attributes: dict[str, Any]) -> Any:
    """What version 3 says of a region, by numbers of attributes and of their options, by the names of both."""
    if not isinstance(values, dict):
        return values
    found = {}
    for key, value in values.items():
        about = attributes.get(key)
        about = about if isinstance(about, dict) else {}
        options = about.get("options")
        first = str(value).partition(",")[0]  # of several that are ticked
        found[str(about.get("aname") or key)] = options.get(first, value) if isinstance(options, dict) else value
    return found


def _class(attributes: Any) -> str:
    if not isinstance(attributes, dict) or not attributes:
        return "object"
    value = next((attributes[key] for key in CLASS_KEYS if attributes.get(key)), next(iter(attributes.values())))
    if isinstance(value, dict):  # a checkbox: {"cat": true}
        value = next((name for name, ticked in value.items() if ticked), "")
    return str(value) or "object"


def _finite(value: Any, where: str) -> float:
    found = number(value)
    if found is None or not math.isfinite(found):
        raise InputError(f"{where}: {str(value)[:40]!r} where a number is expected")
    return found


def _finites(values: Any, where: str) -> list[float]:
    def each() -> Iterator[float]:
        for value in values if isinstance(values, list) else []:
            yield _finite(value, where)

    return list(each())
