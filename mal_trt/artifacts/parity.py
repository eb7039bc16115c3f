"""Parity of an engine: has it the FP32 model's masks on the parity crops? That of an ONNX file is `export.parity`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.manifest import KEPT_ANYWAY, PASSED
from mal_trt.artifacts.parity_file import read_parity
from mal_trt.base.errors import InputError, NanLogits
from mal_trt.geometry.boxes import SizeClass

# Runs an engine: crops [N,3,S,S] uint8 of one size class -> mask logits float32 [N,1,L,L].
Run = Callable[[np.ndarray, SizeClass], np.ndarray]
# Least mean IoU of the masks with those of FP32 PyTorch, over the few crops of a parity file.
LIMITS = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97, "fp8": 0.97}


@dataclass(frozen=True)
class Verdict:
    """Mean and worst IoU with the FP32 masks, and the largest error of a logit by the range of the logits (None
    where logits are not finite). crops: runs compared. limit: least mean IoU allowed."""

    mask_iou: float
    worst: float
    logit_error: float | None
    crops: int
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the engine may be used."""
        return self.logit_error is not None and self.mask_iou >= self.limit

    def describe(self) -> str:
        """One line for people."""
        if self.logit_error is None:
            return f"logits that are not finite on {self.crops} parity crops"
        return (
            f"mean mask IoU {self.mask_iou:.4f} with FP32 (worst {self.worst:.4f}, limit {self.limit:g}) on "
            f"{self.crops} parity crops"
        )

    def document(self) -> dict[str, Any]:
        """The manifest's field `parity` of an engine that is kept with this verdict."""
        return {"status": PASSED if self.passed else KEPT_ANYWAY, **asdict(self)}


def check(run: Run, reference: Path, contract: Contract, most: int) -> Verdict:
    """Compare an engine with the FP32 logits of a parity file. most: largest batch it takes."""
    parts = read_parity(reference)
    rows = [(size, part.image, expected) for part in parts for size, expected in part.rows()]
    ious, error, finite = [], 0.0, True
    span = float(max(row[2].max() for row in rows) - min(row[2].min() for row in rows)) or 1.0
    for size, image, expected in rows:
        border = contract.border(size)
        for first in range(0, len(image), most):
            crops, wanted = image[first : first + most], expected[first : first + most]
            try:
                logits = run(crops.astype(contract.input_dtype), size)
            except NanLogits:
                logits = np.full(wanted.shape, np.nan, np.float32)
            if logits.shape != wanted.shape:
                raise InputError(f"{reference}: holds logits {wanted.shape}, the engine gives {logits.shape}")
            finite = finite and bool(np.isfinite(logits).all())
            error = max(error, float(np.abs(logits - wanted).max()) / span) if finite else error
            ious += [_iou(one > border, other > border) for one, other in zip(logits, wanted, strict=True)]
    limit = LIMITS.get(contract.precision, LIMITS["fp16"])
    return Verdict(float(np.mean(ious)), float(min(ious)), error if finite else None, len(ious), limit)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = np.logical_or(one, other).sum()
    return float(np.logical_and(one, other).sum() / union) if union else 1.0
