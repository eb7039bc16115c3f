"""YOLO label files: `class cx cy w h` or `class x y x y ...`, shares of the picture, perhaps a score and a track."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Builder, Document, ReadResult, around, passed_over
from mal_trt.formats.reading.text import read_text
from mal_trt.formats.reading.yolo_layout import Label, YoloSet
from mal_trt.formats.reading.yolo_tracks import Tracks
from mal_trt.formats.reading.yolo_yaml import is_list
from mal_trt.formats.segmentations import painted_rle

MOST_CLASSES = 100_000
PIXELS = 1.5  # a coordinate beyond it is no share of a picture that went astray


def read_yolo(labels: YoloSet, images: ImageSource) -> ReadResult:
    """The document of a YOLO data set. A file that is no label of a picture that is there is passed over and counted;
    a bad line in any other is an InputError with file and line."""
    build = Builder(images)
    stray: list[str] = []
    numbers = {name: number for number, name in labels.names.items()}
    classes: Counter[int] = Counter()
    beyond = 0
    tracks = Tracks([label.file for label in labels.labels])
    for label in labels.labels:
        try:
            name, found = images.find_stem(*label.pictures), True
        except ImageProblem:
            name, found = _called(label, labels.root), False
        try:
            lines = list(_lines(label.file, labels.keypoints, numbers, tracks))
        except InputError:
            if not _is_stray(label.file) or (found and not is_list(label.file)):
                raise
            stray.append(label.file.name)
            continue
        picture = build.picture(name)
        width, height = (side or 1 for side in build.size(picture))
        for line in lines:
            classes[line.category] += 1
            beyond += max(line.values) > PIXELS
            bbox, more = _box(line, width, height)
            build.box(picture, line.category, bbox, **more)
    read = build.finish(labels.names)
    read.notes += labels.notes
    if stray:
        read.notes.append(passed_over(stray))
    if tracks.found:
        read.notes.append(f"{tracks.found:,} lines end in a track number, kept as `track_id`")
    read.notes += _hints(classes, labels.names, beyond)
    return read


class _Line(NamedTuple):
    """A line of a label file: its class, its shares of the picture, and the further fields, such as a score."""

    category: int
    values: list[float]
    more: Document


def is_label_line(text: str) -> bool:
    """Whether a line is a box or a polygon, whatever its numbers."""
    words = text.split()
    return len(words) > 4 and _number(words[0]) is not None and all(_number(w) is not None for w in words[1:])


def is_named_line(text: str) -> bool:
    """Whether a line is a box whose class is written as a name."""
    words = text.split()
    values = [_number(word) for word in words[1:]]
    return len(values) in (4, 5) and _number(words[0]) is None and all(v is not None and 0 <= v <= 1 for v in values)


def _lines(file: Path, keypoints: int, numbers: dict[str, int], tracks: Tracks) -> Iterator[_Line]:
    for number, text in enumerate(read_text(file).splitlines(), 1):
        words = text.split()
        if not words:
            continue
        where = f"{file}:{number}"
        values = [_number(word) for word in words[1:]]
        kind = _class(words[0], numbers)
        if kind is None or None in values:
            listed = "" if _number(words[0]) is not None else " (a class by its name must be among the names)"
            raise InputError(
                f"{where}: not a YOLO line; expected a class number and numbers, not {text[:60]!r}{listed}"
            )
        if not 0 <= kind < MOST_CLASSES:
            raise InputError(f"{where}: class {kind:.0f}; expected 0 to {MOST_CLASSES - 1}")
        if not all(math.isfinite(v) for v in values if v is not None):
            raise InputError(f"{where}: a number is not finite")
        shares = [v for v in values if v is not None]
        if keypoints and len(shares) >= 4 + keypoints:
            shares = shares[:4] + shares[4 + keypoints :]
        elif _is_pose(shares):
            raise InputError(
                f"{where}: looks like a box and key points; give the data set's data.yaml, whose kpt_shape says how "
                "many numbers they have"
            )
        track = tracks.take(shares)
        count = len(shares)
        more: Document = {"score": shares.pop()} if count % 2 and count > 4 else {}
        if track is not None:
            more["track_id"] = track
        if len(shares) < 4:
            raise InputError(
                f"{where}: {count} numbers after the class; "
                "expected 4 (a box) or 6 and more (a polygon), and perhaps a score"
            )
        yield _Line(int(kind), shares, more)


def _is_pose(values: list[float]) -> bool:
    """Whether numbers are a box and key points x, y and 0 (not there), 1 (hidden) or 2 (visible)."""
    seen = values[6::3]
    return len(values) % 3 == 1 and seen.count(2) > 1 and set(seen) <= {0, 1, 2}


def _box(line: _Line, width: int, height: int) -> tuple[list[float], Document]:
    """XYWH pixels of a line, and the further fields of its annotation."""
    if len(line.values) == 4:
        cx, cy, w, h = line.values
        # Six written digits leave a box at the border a hair outside its picture.
        x0, x1 = (_snapped(x * width, width) for x in (cx - w / 2, cx + w / 2))
        y0, y1 = (_snapped(y * height, height) for y in (cy - h / 2, cy + h / 2))
        return [x0, y0, x1 - x0, y1 - y0], line.more
    xs, ys = [v * width for v in line.values[0::2]], [v * height for v in line.values[1::2]]
    # Without its picture a polygon has no pixels.
    mask = painted_rle(np.array([xs, ys]).T, height, width) if width > 1 or height > 1 else None
    return around(xs, ys), {**({"segmentation": mask} if mask else {}), **line.more}


def _snapped(value: float, side: int) -> float:
    """A coordinate within 1e-5 of the picture's side from 0 or the side: exactly there."""
    for edge in (0.0, float(side)):
        if abs(value - edge) <= 1e-5 * side:
            return edge
    return value


def _class(word: str, numbers: dict[str, int]) -> float | None:
    """A class by its number, which NumPy writes as 0.0, or by its name."""
    value = _number(word)
    if value is None:
        return numbers.get(word)
    return value if math.isfinite(value) and value.is_integer() else None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _called(label: Label, root: Path) -> str:
    """What a picture that is not there is called: its label file's path in the data set."""
    try:
        return label.file.relative_to(root).with_suffix("").as_posix()
    except ValueError:
        return label.file.stem


def _is_stray(file: Path) -> bool:
    """Whether no line of a file is a label; then it is a note, a list, or something else."""
    try:
        lines = read_text(file).splitlines()
        return not any(is_label_line(line) or is_named_line(line) for line in lines)
    except InputError:
        return True


def _hints(classes: Counter[int], names: dict[int, str], beyond: int) -> Iterator[str]:
    if beyond * 2 > classes.total():
        yield (
            f"{beyond:,} of {classes.total():,} boxes have numbers above 1: they look like pixels, "
            "where YOLO has shares of the picture's width and height"
        )
    if names and classes and 0 not in classes and max(classes) == max(names) + 1:
        yield f"classes run from {min(classes)} to {max(classes)} and the names from 0: they look counted from 1"
