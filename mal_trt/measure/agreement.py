"""Agreement of two models: how far one's answers are from the other's. Against drawn masks alone it is `metrics`.

No model is run here: whoever has logits makes `answers` of them, once for each model, and adds
pairs of them to an `Agreement`, which keeps sums and one score for each drawn mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.rle import RLE
from mal_trt.measure.metrics import ObjectScore, mask_iou, summarize

CLOSE = 0.9  # below this mask IoU a box counts as changed
LISTED = 20  # ids of boxes listed at most

BoxId = int | float | str


@dataclass(frozen=True)
class Truth:
    """A drawn mask, in the terms of `mal-trt evaluate`. area: of the box, original square pixels."""

    rle: RLE
    category_id: int
    area: float


@dataclass(frozen=True)
class Answer:
    """What one model made of one box.

    frame: of its crop. logits: the network's, float32 [h,w]. rle: its mask, None where the logits are not finite.
    score: against the drawn mask, if there is one; its boundary IoU is not measured.
    """

    box: BoxId
    frame: Frame
    logits: np.ndarray
    rle: RLE | None
    score: ObjectScore | None


def answers(
    logits: np.ndarray | Sequence[np.ndarray],
    frames: Sequence[Frame],
    boxes: Sequence[BoxId],
    thresholds: Sequence[float],
    truths: Sequence[Truth | None] | None = None,
    refined: Sequence[np.ndarray] | None = None,
) -> list[Answer]:
    """Answers from logits, float32 [N,h,w] or N of [h,w], with the frames of their crops and the ids of their boxes.

    thresholds: mask probability for small, medium and large boxes. refined: the logits to make the masks of, where
    labelling refines them. A box whose logits are not finite has no mask and scores 0.
    """
    drawn = truths if truths is not None else [None] * len(frames)
    finals = refined if refined is not None else logits
    return [
        _answer(values, final, frame, box, thresholds[frame.size_class], truth)
        for values, final, frame, box, truth in zip(logits, finals, frames, boxes, drawn, strict=True)
    ]


def _answer(
    logits: np.ndarray, refined: np.ndarray, frame: Frame, box: BoxId, threshold: float, truth: Truth | None
) -> Answer:
    rle = rle_from_logits(refined, frame, threshold) if np.isfinite(logits).all() else None
    score = None
    if truth is not None:
        iou = mask_iou(rle, truth.rle) if rle is not None else 0.0
        score = ObjectScore(truth.category_id, truth.area, iou, math.nan)
    return Answer(box, frame, logits, rle, score)


def agreement_iou(a: RLE, b: RLE) -> float:
    """IoU of two masks of one picture where two empty masks agree: 1."""
    return 1.0 if a["counts"] == b["counts"] else mask_iou(a, b)


class Agreement:
    """Pairs of answers to the same boxes, summed up: a reference's and another model's."""

    def __init__(self) -> None:
        self._sums = {size: _Sums() for size in SizeClass}
        self._scores: tuple[list[ObjectScore], list[ObjectScore]] = [], []
        self.not_finite = BoxList()
        self.reference_not_finite = BoxList()

    def add(self, reference: Answer, other: Answer) -> None:
        """One box. Where the reference's logits are not finite it is only counted; where the other's are not, the
        masks have nothing in common."""
        if other.rle is None:
            self.not_finite.add(other.box)
        if reference.rle is None:
            self.reference_not_finite.add(reference.box)
            return
        self._sums[reference.frame.size_class].add(reference, other)
        if reference.score is not None and other.score is not None:
            self._scores[0].append(reference.score)
            self._scores[1].append(other.score)

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-ready values, null where there is nothing to say.

        boxes; mask_iou: mean, worst, worst_box and below_0.9, the share of boxes below that; logit_error, null if the
        crops or the logits' shapes differ: max and mean (absolute), relative_max and relative_mean (divided by
        reference_range, the span of the reference's logits); by_size: the same for small, medium, large boxes;
        miou: {reference, other, difference}, also by size, null without drawn masks; not_finite and
        reference_not_finite: {count, boxes}, the ids of boxes with NaN or infinite logits.
        """
        total = _Sums()
        for sums in self._sums.values():
            total.merge(sums)
        return {
            **total.summary(),
            "by_size": {size.name.lower(): sums.summary() for size, sums in self._sums.items()},
            "miou": self._miou(),
            "not_finite": self.not_finite.summary(),
            "reference_not_finite": self.reference_not_finite.summary(),
        }

    def _miou(self) -> dict[str, Any] | None:
        if not self._scores[0]:
            return None
        reference, other = (miou(scores) for scores in self._scores)
        difference = {
            name: None if value is None or other[name] is None else other[name] - value
            for name, value in reference.items()
        }
        return {"objects": len(self._scores[0]), "reference": reference, "other": other, "difference": difference}


def miou(scores: list[ObjectScore]) -> dict[str, Any]:
    """Mean IoU over classes as `mal-trt evaluate` has it: of all objects, and of small, medium and large boxes."""
    figures = summarize(scores, {})
    return {name: figures[f"miou_{name}" if name != "all" else "miou"] for name in ("all", "small", "medium", "large")}


@dataclass
class BoxList:
    """How many boxes, and the ids of the first of them."""

    count: int = 0
    boxes: list[BoxId] = field(default_factory=list)

    def add(self, box: BoxId) -> None:
        self.count += 1
        if len(self.boxes) < LISTED:
            self.boxes.append(box)

    def summary(self) -> dict[str, Any]:
        return {"count": self.count, "boxes": list(self.boxes)}


@dataclass
class _Sums:
    """What is kept of the boxes of one size class."""

    boxes: int = 0
    iou: float = 0.0
    worst: float = math.inf
    worst_box: BoxId | None = None
    below: int = 0
    logits: int = 0
    error: float = 0.0
    largest_error: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    comparable: bool = True

    def add(self, reference: Answer, other: Answer) -> None:
        assert reference.rle is not None
        iou = agreement_iou(reference.rle, other.rle) if other.rle is not None else 0.0
        self.boxes += 1
        self.iou += iou
        self.below += iou < CLOSE
        if iou < self.worst:
            self.worst, self.worst_box = iou, reference.box
        if other.rle is None:
            return
        if reference.frame != other.frame or reference.logits.shape != other.logits.shape:
            self.comparable = False
        else:
            error = np.abs(other.logits - reference.logits)
            self.logits += error.size
            self.error += float(error.sum(dtype=np.float64))
            self.largest_error = max(self.largest_error, float(error.max()))
            self.low = min(self.low, float(reference.logits.min()))
            self.high = max(self.high, float(reference.logits.max()))

    def merge(self, more: _Sums) -> None:
        if more.worst < self.worst:
            self.worst, self.worst_box = more.worst, more.worst_box
        self.boxes += more.boxes
        self.iou += more.iou
        self.below += more.below
        self.logits += more.logits
        self.error += more.error
        self.largest_error = max(self.largest_error, more.largest_error)
        self.low, self.high = min(self.low, more.low), max(self.high, more.high)
        self.comparable &= more.comparable

    def summary(self) -> dict[str, Any]:
        if not self.boxes:
            return {"boxes": 0, "mask_iou": None, "logit_error": None}
        iou = {
            "mean": self.iou / self.boxes,
            "worst": self.worst,
            "worst_box": self.worst_box,
            "below_0.9": self.below / self.boxes,
        }
        return {"boxes": self.boxes, "mask_iou": iou, "logit_error": self._logit_error()}

    def _logit_error(self) -> dict[str, float] | None:
        if not self.comparable or not self.logits:
            return None
        span = self.high - self.low or 1.0
        mean = self.error / self.logits
        return {
            "max": self.largest_error,
            "mean": mean,
            "relative_max": self.largest_error / span,
            "relative_mean": mean / span,
            "reference_range": self.high - self.low,
        }
