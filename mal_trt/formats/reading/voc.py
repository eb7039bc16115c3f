"""Pascal VOC: an .xml file a picture, corners in pixels counted from 1, the last one included; and the masks of its
objects, drawn in the picture of that name in `SegmentationObject`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from mal_trt.base.errors import InputError
from mal_trt.base.files import REGULAR, file_kind
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Builder, ReadResult, among
from mal_trt.formats.reading.drawn import drawn_values, matched, region_rle, regions_of
from mal_trt.formats.reading.nowhere import Nowhere
from mal_trt.formats.reading.places import split_name
from mal_trt.formats.reading.text import read_text
from mal_trt.formats.reading.xml_elements import elements
from mal_trt.geometry.rle import RLE

SIDES = ("xmin", "ymin", "xmax", "ymax")
ROOT = "annotation"
FOLDER, DRAWN = "Annotations", "SegmentationObject"
VOID, VOID_COLOUR = 255, (224, 224, 192)  # what belongs to no object for sure: an index of the palette, and its colour


class _Object(NamedTuple):
    picture: int
    name: str
    corners: list[float] | None
    reason: str = ""
    mask: RLE | None = None


def read_voc(files: list[Path], images: ImageSource) -> ReadResult:
    """The document of VOC files. XML that holds something else is passed over and counted; what is broken is an
    InputError with file and line."""
    build = Builder(images)
    found: list[_Object] = []
    stray: list[str] = []
    for file in files:
        root = list(elements(file, frozenset()))[-1]
        if root.tag != ROOT:
            stray.append(file.name)
            continue
        try:
            name = build.locate((root.findtext("filename") or root.findtext("path") or "").strip(), file)
            width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
            picture = build.picture(name, (width, height) if width > 0 and height > 0 else None)
            objects = [_object(picture, entry) for entry in root.iter("object")]
            found += _with_masks(build, objects, file)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{file}: not a VOC annotation ({error})") from None
    # A zero anywhere tells of a tool that counts from 0.
    start = 0 if any(one.corners and min(one.corners[:2]) < 1 for one in found) else 1
    for picture, kind, corners, reason, mask in found:
        if corners is None:
            build.refuse(picture, kind, reason)
            continue
        x0, y0, x1, y1 = corners
        more = {"segmentation": mask} if mask else {}
        build.box(picture, kind, [x0 - start, y0 - start, x1 - x0 + start, y1 - y0 + start], **more)
    read = build.finish()
    if stray:
        read.notes.append(f"{len(stray):,} .xml files are no VOC annotations and were passed over ({among(stray)})")
    return read


def voc_splits(files: Iterable[Path], split: str | None) -> dict[Path, str]:
    """The files that a list in ImageSets/Main of their VOC data set counts to a split, with it."""
    wanted = split_name(split or "")
    listed: dict[Path, set[str]] = {}
    found: dict[Path, str] = {}
    for file in files:
        home = file.absolute().parent.parent
        if home not in listed:
            lists = [f for f in sorted(home.glob("ImageSets/Main/*.txt")) if split_name(f.stem) == wanted]
            listed[home] = {line.split()[0] for f in lists for line in read_text(f).splitlines() if line.split()}
        if file.stem in listed[home]:
            found[file] = wanted
    return found


def _object(picture: int, entry: Element) -> _Object:
    name = (entry.findtext("name") or "").strip()
    if entry.find("bndbox") is None:
        turned = entry.find("robndbox") is not None
        return _Object(picture, name, None, "rotated rectangle" if turned else "object without a bndbox")
    corners = [float(entry.findtext(f"bndbox/{side}") or "?") for side in SIDES]
    if not all(map(math.isfinite, corners)):
        raise ValueError(f"a corner of {name!r} is not finite")
    return _Object(picture, name, corners)


def _with_masks(build: Builder, objects: list[_Object], file: Path) -> list[_Object]:
    """The objects of a file with the masks that are drawn for them, where there are any."""
    place = _drawn(file)
    if place is None or not objects or isinstance(build.images, Nowhere):
        return objects
    try:
        values = drawn_values(place, VOID, VOID_COLOUR)
    except ImageProblem:
        build.aside["pictures of masks cannot be read and were left out"] += 1
        return objects
    if values.shape[::-1] != build.size(objects[0].picture):
        build.aside["pictures of masks differ in size from the pictures of their objects and were left out"] += 1
        return objects
    regions = regions_of(values)
    boxes = [one.corners and [one.corners[0] - 1, one.corners[1] - 1, *one.corners[2:]] for one in objects]
    chosen = matched(values, regions, boxes)
    if unused := len(regions) - len(chosen):
        build.aside["drawn masks fit the box of no object and were left out"] += unused
    return [
        one._replace(mask=region_rle(values, chosen[at])) if at in chosen else one for at, one in enumerate(objects)
    ]


def _drawn(file: Path) -> Path | None:
    """Where the masks of a file's objects are drawn; None if they are not."""
    parts = file.absolute().parts
    if FOLDER not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index(FOLDER)
    place = Path(*parts[:at], DRAWN, *parts[at + 1 :]).with_suffix(".png")
    return place if file_kind(place) == REGULAR else None
