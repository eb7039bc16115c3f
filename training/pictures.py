"""Boxes to train from: COCO documents and the pictures they name, decoded when asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.errors import InputError
from mal_trt.images import OTHER_SIZE, ImageProblem, ImageSource, open_images

UNKNOWN = "annotation of an unknown picture"


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
    annotation id) of each row, for messages. skipped: annotations left out, by reason.
    """

    boxes: np.ndarray
    picture: np.ndarray
    pictures: list[TrainingPicture]
    ids: list[tuple[str, int]]
    skipped: Counter[str]

    def __len__(self) -> int:
        return len(self.boxes)


def read_training_boxes(
    images: Sequence[Path],
    documents: Sequence[Path],
    min_area: float,
    max_area: float,
) -> TrainingBoxes:
    """Annotations worth training on, by MAL's filter.

    images[i] is the folder or tar of documents[i]. Kept: both sides over 2 px, the box inside the picture,
    min_area < w*h < max_area (original square pixels), the picture there and of the size its document says.
    """
    if len(images) != len(documents):
        raise InputError(f"{len(images)} picture sources for {len(documents)} box files; give one --images per --boxes")
    boxes: list[tuple[float, float, float, float]] = []
    picture: list[int] = []
    ids: list[tuple[str, int]] = []
    pictures: list[TrainingPicture] = []
    skipped: Counter[str] = Counter()
    for source, document in zip(images, documents, strict=True):
        content = _read_document(document)
        try:
            opened = open_images(source)
            index = {r["id"]: _find(opened, r) for r in content["images"]}
            place: dict[Any, int] = {}
            for record in content["annotations"]:
                found = index.get(record["image_id"], UNKNOWN)
                x, y, w, h = (float(v) for v in record["bbox"])
                if isinstance(found, str):
                    skipped[found] += 1
                    continue
                width, height = found.expected
                if w <= 2 or h <= 2 or x < 0 or y < 0 or x + w > width or y + h > height:
                    skipped["box too thin or not inside its picture"] += 1
                elif not min_area < w * h < max_area:
                    skipped["box area outside the limits"] += 1
                else:
                    boxes.append((x, y, x + w, y + h))
                    picture.append(place.setdefault(record["image_id"], len(pictures)))
                    if picture[-1] == len(pictures):
                        pictures.append(found)
                    ids.append((document.name, int(record.get("id", len(ids)))))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{document}: a picture or annotation lacks a field or has a bad one ({error!r})"
            ) from None
    if not boxes:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no annotations"
        raise InputError(f"{', '.join(map(str, documents))}: no box to train from ({reasons})")
    return TrainingBoxes(np.asarray(boxes, np.float32), np.asarray(picture), pictures, ids, skipped)


def _find(source: ImageSource, record: dict[str, Any]) -> TrainingPicture | str:
    """The picture of a document's record, or the reason why it cannot be used."""
    expected = int(record["width"]), int(record["height"])
    try:
        name = source.find(str(record["file_name"]))
        size = source.size(name)
    except ImageProblem as problem:
        return problem.reason
    return TrainingPicture(source, name, expected) if sorted(size) == sorted(expected) else OTHER_SIZE


def epoch_order(picture: np.ndarray, cap: int | None, seed: int, epoch: int) -> np.ndarray:
    """Rows of one epoch in random order, at most `cap` a picture, drawn anew each epoch; int64 [n]."""
    order = np.random.default_rng([seed, epoch]).permutation(len(picture))
    if cap is None:
        return order
    by_picture = order[np.argsort(picture[order], kind="stable")]
    sorted_picture = picture[by_picture]
    first = np.searchsorted(sorted_picture, sorted_picture)
    kept = np.zeros(len(picture), bool)
    kept[by_picture[np.arange(len(picture)) - first < cap]] = True
    return order[kept[order]]


def _read_document(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise InputError(f"{path}: not a COCO document (needs the lists `images` and `annotations`)")
    return content
