"""Collects pictures, classes and boxes into a COCO document, as every reader does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.places import picture_paths

Document = dict[str, Any]
SHOWN = 3  # examples in a message


@dataclass
class ReadResult:
    """What a reader made of its files. reasons: why an annotation, by its place, is no box. notes: what was left out,
    counted."""

    document: Document
    reasons: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Builder:
    """A document in the making. Pictures and boxes get ids 1, 2, ... as they come."""

    def __init__(self, images: ImageSource) -> None:
        self.images = images
        self.reasons: dict[int, str] = {}
        self.aside: Counter[str] = Counter()
        self._pictures: list[Document] = []
        self._annotations: list[Document] = []
        self._classes: dict[str, int] = {}

    def locate(self, name: str, label: Path | None = None) -> str:
        """Stored name of the picture that a file names, else of the one that is called like the file; else its name."""
        if name:
            try:
                return self.images.find(name)
            except ImageProblem:
                pass
        if label is not None:
            try:
                return self.images.find_stem(*picture_paths(label))
            except ImageProblem:
                pass
        return name or (label.stem if label else "")

    def has(self, name: str) -> bool:
        """Whether there is a picture of that stored name."""
        try:
            return self.images.find(name) == name
        except ImageProblem:
            return False

    def picture(self, name: str, size: tuple[int, int] | None = None) -> int:
        """The id of a picture by its stored name or, if it is missing, by the file's name for it. size: (width, height)
        where the format says it, else the picture itself is asked."""
        try:
            width, height = size or self.images.size(name)
        except ImageProblem:  # without its picture a box has no pixels: what it is skipped for, labelling finds out
            width = height = 0
        number = len(self._pictures) + 1
        self._pictures.append({"id": number, "file_name": name, "width": width, "height": height})
        return number

    def size(self, picture: int) -> tuple[int, int]:
        """(width, height) of a picture by its id; (0, 0) where it is missing and nobody says."""
        record = self._pictures[picture - 1]
        return record["width"], record["height"]

    def box(self, picture: int, kind: str | int, bbox: list[float], **more: Any) -> None:
        """A box, XYWH pixels, half-open. kind: its class's name, or its number where `finish` is told the names."""
        record = {"id": len(self._annotations) + 1, "image_id": picture, "category_id": kind, "bbox": bbox}
        self._annotations.append({**record, "area": bbox[2] * bbox[3], "iscrowd": 0, **more})

    def refuse(self, picture: int, kind: str | int, reason: str) -> None:
        """A record that stands in the file and cannot be a box."""
        self.reasons[len(self._annotations)] = reason
        self._annotations.append(
            {"id": len(self._annotations) + 1, "image_id": picture, "category_id": kind, "bbox": None, "iscrowd": 0}
        )

    def finish(self, names: dict[int, str] | None = None) -> ReadResult:
        """The document. names: of classes that are numbers from 0; else classes are names, numbered from 1 in order."""
        if names is None:
            order = sorted({record["category_id"] for record in self._annotations})
            numbers = {name: number for number, name in enumerate(order, 1)}
            for record in self._annotations:
                record["category_id"] = numbers[record["category_id"]]
            categories = [{"id": number, "name": name} for name, number in numbers.items()]
        else:
            last = max({record["category_id"] for record in self._annotations} | set(names), default=-1)
            categories = [{"id": c, "name": names.get(c, str(c))} for c in range(last + 1)]
        document = {"images": self._pictures, "annotations": self._annotations, "categories": categories}
        return ReadResult(document, self.reasons, [f"{count:,} {what}" for what, count in self.aside.items()])


def among(names: Iterable[str]) -> str:
    """Some names, the first few of them."""
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")


def passed_over(names: Sequence[str]) -> str:
    """A note of files that lie among labels and are none; at least one."""
    what = "1 file is no label file and was" if len(names) == 1 else f"{len(names):,} files are no labels and were"
    return f"{what} passed over ({among(names)})"


def corners(x0: float, y0: float, x1: float, y1: float) -> list[float]:
    """XYWH of two opposite corners in any order."""
    return [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]


def around(xs: list[float], ys: list[float]) -> list[float]:
    """XYWH of the box around some points."""
    return corners(min(xs), min(ys), max(xs), max(ys))


def polygon(xs: list[float], ys: list[float]) -> list[float]:
    """Points as COCO writes them: x, y, x, y, ..."""
    return [value for point in zip(xs, ys, strict=True) for value in point]
