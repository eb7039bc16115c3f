"""Pascal VOC: an .xml file a picture, corners in pixels counted from 1, the last one included."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.reading.build import Builder, Read, among
from mal_trt.formats.reading.places import split_name
from mal_trt.formats.reading.text import read_text
from mal_trt.formats.reading.xml_elements import elements

SIDES = ("xmin", "ymin", "xmax", "ymax")
ROOT = "annotation"


class _Object(NamedTuple):
    picture: int
    name: str
    corners: list[float] | None
    reason: str = ""


def read_voc(files: list[Path], images: ImageSource) -> Read:
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
            found += [_object(picture, entry) for entry in root.iter("object")]
        except (ValueError, OverflowError) as error:
            raise InputError(f"{file}: not a VOC annotation ({error})") from None
    # A zero anywhere tells of a tool that counts from 0.
    start = 0 if any(one.corners and min(one.corners[:2]) < 1 for one in found) else 1
    for picture, kind, corners, reason in found:
        if corners is None:
            build.refuse(picture, kind, reason)
            continue
        x0, y0, x1, y1 = corners
        build.box(picture, kind, [x0 - start, y0 - start, x1 - x0 + start, y1 - y0 + start])
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
