"""Does a model still give the same masks? Its agreement with a reference, what each layer costs, and the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx

from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.backends import open_backend
from mal_trt.base.errors import NanLogits, RunError
from mal_trt.calibration.emulate import emulate
from mal_trt.calibration.output import save
from mal_trt.calibration.quantize import Layer
from mal_trt.calibration.sample import CropBatch, Spot
from mal_trt.calibration.targets import Target
from mal_trt.geometry.refine import refine_colour
from mal_trt.measure.agreement import Agreement, Answer, Truth, answers

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What quantising or pruning one layer alone costs: `change` of the masks as in `change_of`, `error` the mean error
    of the logits by their range."""

    layer: str
    change: float
    error: float


class Check:
    """Crops on which models are compared with a reference, whose answers are kept.

    reference: an ONNX file of `mal-trt export`. trial: name for the file of a model under test. threads: CPU
    threads of the network. contract: the reference's. drawn: whether models are judged by drawn masks (see `drop_of`),
    which half of the boxes at least must have: the mIoU of a few says little.
    """

    def __init__(self, reference: Path, batches: Iterable[CropBatch], trial: Path, threads: int | None = None) -> None:
        self._batches, self._trial, self._threads = list(batches), trial, threads
        self._truths = [[truth(spot) for spot in batch.spots] for batch in self._batches]
        has_mask = [mask is not None for masks in self._truths for mask in masks]
        self.drawn = 2 * sum(has_mask) >= len(has_mask) > 0
        if not self.drawn:
            self._truths = [[None] * len(masks) for masks in self._truths]
        self.contract = read_contract(reference)
        self._reference = self._run(reference, nan=False)

    @property
    def boxes(self) -> int:
        """Boxes compared."""
        return len(self._reference)

    def agreement(self, model: onnx.ModelProto) -> dict[str, Any]:
        """Summary of `Agreement` between the reference and a model, its FP16 rounded as a GPU does."""
        found = Agreement()
        save(emulate(model), self._trial)
        try:
            for reference, other in zip(self._reference, self._run(self._trial, nan=True), strict=True):
                found.add(reference, other)
        finally:
            self._trial.unlink(missing_ok=True)
        return found.summary()

    def _run(self, model: Path, nan: bool) -> list[Answer]:
        backend = open_backend(model, "cpu", self._threads, backend="onnxruntime")
        found = []
        try:
            for number, batch in enumerate(self._batches):
                try:
                    logits = backend.run(batch.image, batch.size)[:, 0]
                except NanLogits:
                    if not nan:
                        raise
                    logits = np.full((len(batch.spots), 1, 1), np.nan, np.float32)
                ids = [f"{number}/{place}" for place in range(len(batch.spots))]
                refined = _refined(logits, batch) if backend.contract.refine == "color" else None
                found += answers(logits, batch.frames, ids, backend.contract.thresholds, self._truths[number], refined)
        finally:
            backend.close()
        return found


def _refined(logits: np.ndarray, batch: CropBatch) -> list[np.ndarray]:
    """The logits that masks are made of where the model has them refined."""
    rows = zip(logits, batch.image, batch.frames, strict=True)
    return [refine_colour(*row) if np.isfinite(row[0]).all() else row[0] for row in rows]


def truth(spot: Spot) -> Truth | None:
    """The drawn mask of a box, if its record has one."""
    rle = spot.truth
    if rle is None:
        return None
    _, _, width, height = spot.record["bbox"]
    return Truth(rle, spot.record["category_id"], width * height)


def change_of(summary: Mapping[str, Any]) -> float:
    """How far the mean IoU with the reference's masks is from 1; 1 if any logits are not finite."""
    if summary["not_finite"]["count"] or not summary["boxes"]:
        return 1.0
    return 1.0 - float(summary["mask_iou"]["mean"])


def drop_of(summary: Mapping[str, Any]) -> float:
    """What the gate goes by: the fall of mIoU against drawn masks, or, where there are none, `change_of`."""
    if summary["miou"] is None or summary["not_finite"]["count"]:
        return change_of(summary)
    return -float(summary["miou"]["difference"]["all"])


def sensitivity(
    model: onnx.ModelProto,
    chosen: Sequence[Layer],
    target: Target,
    check: Check,
    known: Mapping[str, Cost],
    done: Callable[[Cost], None] = lambda cost: None,
) -> list[Cost]:
    """What each layer costs when it alone is quantised in the FP32 graph, costliest first.

    known: costs that need no new run. done: called with each new one.
    """
    costs = []
    for layer in chosen:
        if layer.name not in known:
            summary = check.agreement(target.quantize(model, [layer]))
            error = summary["logit_error"]
            cost = Cost(layer.name, change_of(summary), error["relative_mean"] if error else 1.0)
            done(cost)
        else:
            cost = known[layer.name]
        costs.append(cost)
    return sorted(costs, key=lambda cost: (-cost.change, -cost.error))


def largest_set(
    order: Sequence[T], drop: Callable[[Sequence[T]], float], limit: float, rest: str = "FP16"
) -> tuple[list[T], float]:
    """The most layers that stay within the limit when the costliest are left out first, and the drop they give.

    order: costliest first. drop: of a model with just these layers quantised or pruned; measured O(log n) times, taking
    it to fall as layers are left out. rest: precision of what is not quantised. RunError if even the cheapest layer
    alone passes the limit.
    """
    found = drop(order)
    if found <= limit:
        return list(order), found
    low, high = 0, len(order)  # leaving out `low` is not enough; `high` leaves nothing
    best: float | None = None
    while high - low > 1:
        middle = (low + high) // 2
        dropped = drop(order[middle:])
        if dropped <= limit:
            high, best = middle, dropped
        else:
            low = middle
    if best is None:
        raise RunError(
            f"no set of layers stays within the limit of {limit:g} (all of them: {found:.4f}, the least sensitive "
            f"alone is above it too); nothing was written, use the {rest} model"
        )
    return list(order[high:]), best
