"""What runs a model: one small interface, opened by file name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from mal_trt.boxes import SizeClass
from mal_trt.contract import Contract
from mal_trt.errors import InputError
from mal_trt.models import resolve_model

DEVICES = ("auto", "cpu", "cuda")


class Backend(Protocol):
    """A model ready to run.

    contract: the model's own description. provider: what really runs it, e.g. "CPUExecutionProvider".
    outputs: names of the logits it offers: `logits`, and for mixed models `logits_student`, `logits_teacher`.
    """

    contract: Contract
    provider: str
    outputs: tuple[str, ...]

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """Mask logits of a batch of crops of one size class.

        image: [N,3,S,S] RGB 0..255, uint8 (or float32 where the contract says so).
        weights: "student", "teacher" or "mixed" where the model carries both; None is the model's default.
        Returns float32 [N,1,h,w], h = w = S/4 (S/2 without scale adjustment). NanLogits if a value is NaN.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; it cannot run afterwards."""
        ...


def open_backend(model: str | Path = "bundled", device: str = "auto", threads: int | None = None) -> Backend:
    """Open a model file, or `bundled`, on a device: "cpu", "cuda" or "auto" (CUDA where it really works).

    threads: CPU threads for the network, None = one per core. InputError if file or device is unusable.
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: expected 1 or more")
    path = resolve_model(model)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: not a .onnx file; `mal-trt export` turns a checkpoint into one")
    from mal_trt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, device, threads)
