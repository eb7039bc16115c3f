"""KITTI labels, which TAO's detectors train on: `type truncated occluded alpha x0 y0 x1 y1 ...`, pixels."""

from __future__ import annotations

import math
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.reading.build import Builder, ReadResult, corners, passed_over
from mal_trt.formats.reading.text import read_text

FIELDS = 15  # a score may follow
LEFT_OUT = "dontcare"


def read_kitti(files: list[Path], images: ImageSource) -> ReadResult:
    """The document of KITTI files. DontCare regions are no objects: they are counted. A file without a line of KITTI's
    is passed over and counted; a bad line in any other is an InputError with file and line."""
    build = Builder(images)
    stray: list[str] = []
    for file in files:
        try:
            lines = read_text(file).splitlines()
        except InputError:
            if _has_picture(build, file):
                raise
            lines = ["?"]
        if any(line.strip() for line in lines) and not any(map(is_kitti_line, lines)) and not _has_picture(build, file):
            stray.append(file.name)
            continue
        picture = build.picture(build.locate("", file))
        for number, line in enumerate(lines, 1):
            if line.strip():
                _add(build, picture, line, f"{file}:{number}")
    read = build.finish()
    if stray:
        read.notes.append(passed_over(stray))
    return read


def is_kitti_line(text: str) -> bool:
    """Whether a line is an object of KITTI's, whatever its numbers."""
    words = text.split()
    if len(words) not in (FIELDS, FIELDS + 1) or _number(words[0]) is not None:
        return False
    return all(_number(word) is not None for word in words[1:])


def _add(build: Builder, picture: int, line: str, where: str) -> None:
    words = line.split()
    numbers = [_number(word) for word in words[1:]]
    if len(words) not in (FIELDS, FIELDS + 1) or None in numbers:
        raise InputError(f"{where}: not a KITTI line; expected a class and 14 numbers, not {line.strip()[:60]!r}")
    values = [v for v in numbers if v is not None]
    if not all(map(math.isfinite, values[3:7])):
        raise InputError(f"{where}: a side of the box is not finite")
    if words[0].lower() == LEFT_OUT:
        build.aside["DontCare regions are no objects and were left out"] += 1
        return
    more = {"score": values[14]} if len(values) == FIELDS and math.isfinite(values[14]) else {}
    build.box(picture, words[0], corners(*values[3:7]), **more)


def _has_picture(build: Builder, file: Path) -> bool:
    return build.locate("", file) != file.stem


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
