"""Boxes to train from: the documents, the pictures they name, and the order of an epoch. One sample of it is `data`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.formats.boxes import BoxesLike, as_boxes
from mal_trt.formats.ids import identity
from mal_trt.formats.images import OTHER_SIZE, ImageProblem, ImageSource, open_images
from mal_trt.formats.picture_problem import MISSING
from mal_trt.labelling.document_rows import NO_FILE_NAME, UNKNOWN_IMAGE, parse_bbox, side
from mal_trt.training.one_size import by_size, size_classes


@dataclass(frozen=True)
class TrainingPicture:
    """One picture of a source, with the (width, height) its document gives it."""

    source: ImageSource
    name: str
    expected: tuple[int, int]

    def read(self) -> np.ndarray:
        """uint8 [H,W,3] RGB; ImageProblem if it cannot be decoded."""
        return self.source.load(self.name, self.expected)


@dataclass(frozen=True)
class TrainingBoxes:
    """Boxes of one or more documents, one row an annotation.

    boxes: float32 [N,4] XYXY original pixels. picture: int64 [N], index into `pictures`. ids: (document,
    annotation id) of each row, for messages. category: int64 [N], index into the names of all classes. skipped:
    annotations left out, by reason. records: int64 [N], place of each row's record in its document.
    """

    boxes: np.ndarray
    picture: np.ndarray
    pictures: list[TrainingPicture]
    ids: list[tuple[str, Any]]
    category: np.ndarray
    skipped: Counter[str]
    records: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.boxes)

    def some(self, rows: np.ndarray) -> TrainingBoxes:
        """Some of the boxes, int64 [n]; they are numbered anew."""
        ids = [self.ids[row] for row in rows]
        own = {name: getattr(self, name)[rows] for name in ("boxes", "picture", "category", "records")}
        return replace(self, ids=ids, **own)

    def digest(self) -> str:
        """SHA-256, hexadecimal, of what a run's samples depend on: the boxes, their classes, their pictures' names."""
        names = [f"{picture.name}\0{picture.expected}\0" for picture in self.pictures]
        parts = (self.boxes.tobytes(), self.picture.tobytes(), self.category.tobytes(), "".join(names).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def read_training_boxes(
    images: Sequence[str | Path],
    documents: Sequence[BoxesLike],
    min_area: float,
    max_area: float,
) -> TrainingBoxes:
    """Annotations worth training on, by MAL's filter.

    images[i] is the folder or tar of documents[i], see `mal_trt.formats.boxes.Boxes`. Kept: both
    sides over 2 px, the box inside the picture, min_area < w*h < max_area (original square pixels), the picture
    there and of the size its document says. The rest is counted in `skipped`. NothingDone if no box is left.
    """
    if len(images) != len(documents):
        raise InputError(f"{len(images)} picture sources for {len(documents)} box files; give one --images per --boxes")
    boxes: list[tuple[float, float, float, float]] = []
    picture: list[int] = []
    ids: list[tuple[str, Any]] = []
    category: list[int] = []
    records: list[int] = []
    classes: dict[Any, int] = {}
    pictures: list[TrainingPicture] = []
    skipped: Counter[str] = Counter()
    lost: list[str] = []
    for source, document in zip(images, map(as_boxes, documents), strict=True):
        opened = open_images(source)
        content = document.document(opened)
        names, index = _names(content.get("categories")), _index(opened, content["images"])
        place: dict[Any, int] = {}
        for number, record in enumerate(content["annotations"]):
            key = identity(record.get("image_id"))
            found = UNKNOWN_IMAGE if key is None else index.get(key, UNKNOWN_IMAGE)
            box = found if isinstance(found, str) else _box(record, found, min_area, max_area)
            if isinstance(found, str) or isinstance(box, str):
                skipped[str(box)] += 1
                continue
            boxes.append(box)
            records.append(number)
            picture.append(place.setdefault(key, len(pictures)))
            if picture[-1] == len(pictures):
                pictures.append(found)
            ids.append((Path(document.path).name, record.get("id", len(ids))))
            kind = identity(record.get("category_id"))
            category.append(classes.setdefault(names.get(kind, kind), len(classes)))
        if (
            name := next((record.get("file_name") for record in content["images"] if _lost(index, record)), None)
        ) is not None:
            there = " and ".join(map(repr, opened.examples(2))) or "no picture"
            lost.append(f"looked for {name!r}, {source} holds {there}; --images seems to be the wrong folder")
    if not boxes:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no annotations"
        why = "; ".join([f"no box to train from ({reasons})", *lost])
        raise NothingDone(f"{', '.join(map(str, documents))}: {why}")
    whole = [np.asarray(one, np.int64) for one in (picture, category, records)]
    return TrainingBoxes(np.asarray(boxes, np.float32), whole[0], pictures, ids, whole[1], skipped, whole[2])


def _names(categories: Any) -> dict[Any, Any]:
    """Names of classes by their ids; what is no class with an id has none."""
    objects = [c for c in categories if isinstance(c, dict)] if isinstance(categories, list) else []
    return {identity(c.get("id")): str(c.get("name") or c.get("id")) for c in objects}


def _index(source: ImageSource, records: list[dict[str, Any]]) -> dict[Any, TrainingPicture | str]:
    """The pictures of a document by their ids, or the reason why one cannot be used; of equal ids the first counts."""
    index: dict[Any, TrainingPicture | str] = {}
    for record in records:
        if (key := identity(record.get("id"))) is not None and key not in index:
            index[key] = _find(source, record)
    return index


def _lost(index: dict[Any, TrainingPicture | str], record: dict[str, Any]) -> bool:
    return index.get(identity(record.get("id"))) == MISSING


def _box(
    record: dict[str, Any], picture: TrainingPicture, min_area: float, max_area: float
) -> tuple[float, float, float, float] | str:
    """A record's box, XYXY picture pixels, or the reason why it is not trained on."""
    box = parse_bbox(record.get("bbox"))
    if isinstance(box, str):
        return box
    x, y, w, h = box
    width, height = picture.expected
    if w <= 2 or h <= 2 or x < 0 or y < 0 or x + w > width or y + h > height:
        return "box too thin or not inside its picture"
    return (x, y, x + w, y + h) if min_area < w * h < max_area else "box area outside the limits"


def _find(source: ImageSource, record: dict[str, Any]) -> TrainingPicture | str:
    """The picture of a document's record, or the reason why it cannot be used."""
    if not record.get("file_name"):
        return NO_FILE_NAME
    try:
        name = source.find(str(record["file_name"]))
        size = source.size(name)
    except ImageProblem as problem:
        return problem.reason
    width, height = side(record.get("width")), side(record.get("height"))
    expected = size if width is None or height is None else (width, height)
    return TrainingPicture(source, name, expected) if sorted(size) == sorted(expected) else OTHER_SIZE


@dataclass(frozen=True)
class Order:
    """How an epoch's boxes are drawn. cap: most boxes of one picture (`boxes_per_picture` of TrainConfig). balance,
    together: as in TrainConfig. one_size: number of boxes in a row that are of one size class; None: as they come."""

    cap: int | None = None
    balance: float = 0.0
    together: int = 1
    one_size: int | None = None


def epoch_order(boxes: TrainingBoxes, rule: Order, seed: int, epoch: int) -> np.ndarray:
    """Rows of one epoch in random order, drawn anew each epoch; int64 [n], n the same in all epochs."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(boxes))
    if rule.cap is not None:
        order = order[_rank(boxes.picture[order]) < rule.cap]
    if rule.balance:
        order = _balanced(order, boxes.category, rule.balance, rng)
    if rule.together > 1:
        picture = boxes.picture[order]
        group = picture * len(order) + _rank(picture) // rule.together
        _, first, member = np.unique(group, return_index=True, return_inverse=True)
        order = order[np.argsort(first[member], kind="stable")]
    if rule.one_size is not None:
        order = by_size(order, size_classes(boxes.boxes[order]), rule.one_size, rng)
    return order


def _rank(keys: np.ndarray) -> np.ndarray:
    """How many equal keys stand before each; int64 [n]."""
    by_key = np.argsort(keys, kind="stable")
    ordered = keys[by_key]
    rank = np.empty(len(keys), np.int64)
    rank[by_key] = np.arange(len(keys)) - np.searchsorted(ordered, ordered)
    return rank


def _balanced(order: np.ndarray, category: np.ndarray, balance: float, rng: np.random.Generator) -> np.ndarray:
    """As many rows, each class with a share of count^(1-balance): some rows again and again, others not at all."""
    rows_of = [order[category[order] == c] for c in np.unique(category[order])]
    counts = np.array([len(rows) for rows in rows_of])
    shares = counts ** (1 - balance) / (counts ** (1 - balance)).sum()
    quotas = np.diff(np.round(np.cumsum(shares) * len(order)).astype(int), prepend=0)
    drawn = [np.resize(rows, quota) for rows, quota in zip(rows_of, quotas, strict=True)]
    return rng.permutation(np.concatenate(drawn))
