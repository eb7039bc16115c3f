"""How good masks are against drawn ones: MAL's mean IoU, its size classes, and boundary IoU. No model is run here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mal_trt.geometry.boxes import SizeClass, size_class
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.morphology import erode
from mal_trt.geometry.rle import RLE, decode_rle, encode_rle

EPSILON = 1e-6
# Boundary IoU's width of a contour, as a share of the picture's diagonal (Cheng et al. 2021).
BOUNDARY_RATIO = 0.02


@dataclass(frozen=True)
class ObjectScore:
    """One object: its class, the area of its BOX in original square pixels, and figures from 0 to 1.

    iou, boundary_iou: of its mask and the drawn one. recall: the share of the drawn mask's pixels that its mask has.
    precision: the share of its mask's pixels that the drawn one has. NaN: not measured.
    """

    category_id: int
    area: float
    iou: float
    boundary_iou: float
    recall: float = math.nan
    precision: float = math.nan


def score_object(predicted: RLE, truth: RLE, category_id: int, area: float) -> ObjectScore:
    """Compare two masks of one picture, both compressed COCO RLE of the same size."""
    shared, found, drawn = _overlap(predicted, truth)
    recall, precision = (shared / whole if whole else 0.0 for whole in (drawn, found))
    iou, near = _iou(shared, found, drawn), boundary_iou(predicted, truth)
    return ObjectScore(category_id, area, iou, near, recall, precision)


def mask_iou(a: RLE, b: RLE) -> float:
    """|A.B| / (|A| + |B| - |A.B| + 1e-6), MAL's definition: two empty masks score 0."""
    return _iou(*_overlap(a, b))


def _overlap(a: RLE, b: RLE) -> tuple[int, int, int]:
    """Pixels that two masks share, and those of each."""
    from pycocotools import mask as coco

    return int(coco.area(coco.merge([a, b], intersect=True))), int(coco.area(a)), int(coco.area(b))


def _iou(shared: int, first: int, second: int) -> float:
    return shared / (first + second - shared + EPSILON)


def boundary_iou(a: RLE, b: RLE, ratio: float = BOUNDARY_RATIO) -> float:
    """IoU of the pixels of each mask near its own contour (Boundary IoU, Cheng et al. 2021).

    Near means within max(1, round(ratio * diagonal of the picture)) pixels, by chessboard distance; the
    picture's border counts as contour.
    """
    height, width = a["size"]
    distance = max(1, round(ratio * math.hypot(height, width)))
    return mask_iou(*(encode_rle(boundary(decode_rle(rle), distance), height, width) for rle in (a, b)))


def boundary(local: LocalMask, distance: int) -> LocalMask:
    """The pixels of a mask with background, or the outside of its window, within `distance` pixels."""
    inside = erode(np.pad(local.mask, 1), distance)[1:-1, 1:-1]
    return LocalMask(local.x0, local.y0, local.mask & ~inside)


def summarize(scores: list[ObjectScore], names: dict[int, str]) -> dict[str, Any]:
    """The figures of `mal-trt evaluate`, as JSON-ready values; null where there is no object.

    names: category id -> name. miou, boundary_iou and the three size bins are means over the classes that
    have an object there (MAL's definition, its batch defect left out); miou_instance, recall and
    precision are means over objects. Bins go by box area, half-open on the low side. Each class: {"iou", "count"}
    under its name.
    """
    by_class: dict[int, list[ObjectScore]] = {}
    for score in scores:
        by_class.setdefault(score.category_id, []).append(score)
    order = [key for key in names if key in by_class] + [key for key in by_class if key not in names]
    labels = unique_names(order, names)
    result: dict[str, Any] = {
        "miou": _class_mean(scores),
        "miou_instance": _mean([s.iou for s in scores]),
        "recall": _mean([s.recall for s in scores]),
        "precision": _mean([s.precision for s in scores]),
    }
    for size in SizeClass:
        result[f"miou_{size.name.lower()}"] = _class_mean([s for s in scores if size_class(s.area) is size])
    result["boundary_iou"] = _class_mean(scores, boundary=True)
    result["per_class"] = {
        labels[key]: {"iou": _class_mean(by_class[key]), "count": len(by_class[key])} for key in order
    }
    result["count"] = len(scores)
    return result


def unique_names(order: list[int], names: dict[int, str]) -> dict[int, str]:
    """Category id -> name, with the id added where two classes share a name or one has none."""
    given = [names.get(key, "") for key in order]
    return {
        key: name if name and given.count(name) == 1 else f"{name} (id {key})".strip()
        for key, name in zip(order, given, strict=True)
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _class_mean(scores: list[ObjectScore], boundary: bool = False) -> float | None:
    """Mean over the classes present of total / (count + 1e-6)."""
    totals: dict[int, list[float]] = {}
    for score in scores:
        totals.setdefault(score.category_id, []).append(score.boundary_iou if boundary else score.iou)
    if not totals:
        return None
    return sum(sum(values) / (len(values) + EPSILON) for values in totals.values()) / len(totals)
