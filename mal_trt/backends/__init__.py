"""What runs a model: one small interface, opened by file name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.backends.choice import AUTO, ENGINES, OPENVINO, check_backend, processor_backend
from mal_trt.base.errors import InputError
from mal_trt.cuda.driver import Driver
from mal_trt.geometry.boxes import SizeClass

DEVICES = ("auto", "cpu", "cuda")


class Backend(Protocol):
    """A model ready to run.

    contract: the model's own description. provider: what really runs it, e.g. "CPUExecutionProvider".
    outputs: names of the logits it offers: `logits`, and for mixed models `logits_student`, `logits_teacher`.
    precision: in which it computes: the contract's, unless the backend chose another for an FP32 model. notes: what the
    user should know, such as that CUDA graphs cannot be used; they may become more while it runs.
    """

    contract: Contract
    provider: str
    outputs: tuple[str, ...]
    precision: str
    notes: list[str]

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """Mask logits of a batch of crops of one size class.

        image: [N,3,S,S] RGB 0..255, uint8 (or float32 where the contract says so).
        weights: "student", "teacher" or "mixed" where the model carries both; None is the model's default.
        Returns float32 [N,1,h,w], h = w = `Contract.logits_side` of the size. NanLogits if a value is NaN.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; it cannot run afterwards."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend on a GPU, whose batches may stay there.

    driver: the GPU it runs on. Its methods may be called from several threads, and `enqueue` on several streams.
    """

    driver: Driver

    def most(self, size: SizeClass) -> int:
        """Largest batch of a size class that `enqueue` takes; `run` splits what is larger."""
        ...

    def least(self, size: SizeClass) -> int:
        """Smallest batch of a size class; `run` pads what is smaller."""
        ...

    def logits_side(self, size: SizeClass) -> int:
        """Side of the logits of a size class, in pixels of their own."""
        ...

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        """Queue a batch on a stream and return at once. NaN is not looked for.

        image: device pointer to [count,3,S,S] of the contract's input_dtype, RGB 0..255. logits: device pointer to
        float32 [count,1,L,L], L = logits_side(size). Both hold at least `least` crops, to which count is raised.
        RunError if it cannot be queued; what fails later is raised where the stream is waited for.
        """
        ...


def parse_device(device: str) -> tuple[str, int]:
    """Kind of device, one of DEVICES, and which GPU; InputError for anything else."""
    kind, colon, number = device.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise InputError(f"device {device!r}: expected one of {', '.join(DEVICES)}, or a GPU by number such as cuda:1")
    return kind, int(number or 0)


def open_backend(
    model: str | Path = "bundled",
    device: str = "auto",
    threads: int | None = None,
    backend: str = AUTO,
    lanes: int = 1,
) -> Backend:
    """Open a model file, or `bundled`, on a device: "cpu", "cuda", "cuda:1" or "auto" (CUDA where it really works).

    threads: CPU threads of one run of the network, None = one per core. backend: one of `choice.BACKENDS`. lanes: how
    many runs will go on at once, each with these threads. InputError if file, device or backend is unusable.
    """
    kind, index = parse_device(device)
    if threads is not None and threads < 1:
        raise InputError(f"threads {threads}: expected 1 or more")
    path = resolve_model(model)
    check_backend(path, kind, backend)
    if path.suffix.lower() in ENGINES:
        if kind == "cpu":
            raise InputError(f"{path}: an engine runs on a GPU alone; for the CPU give the .onnx file it was built of")
        from mal_trt.backends.tensorrt import open_engine

        return open_engine(path, index)
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: not a .onnx file or an engine; `mal-trt export` turns a checkpoint into one")
    if kind != "cpu" and backend != OPENVINO:
        from mal_trt.backends.onnxruntime_cuda import open_on_gpu

        if (on_gpu := open_on_gpu(path, kind, threads, index)) is not None:
            return on_gpu
    if kind != "cuda" and (backend if backend != AUTO else processor_backend(path)) == OPENVINO:
        from mal_trt.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, threads, lanes)
    from mal_trt.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, kind, threads, index)
