"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mal_trt.artifacts.contract import METADATA_KEY, REEXPORT, Contract
from mal_trt.backends.signature import LOGITS, check_image, output_name
from mal_trt.base.errors import InputError, NanLogits, RunError
from mal_trt.cuda.driver import ADVICE
from mal_trt.geometry.boxes import SizeClass

if TYPE_CHECKING:
    import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
MEMORY_ADVICE = ADVICE["CUDA_ERROR_OUT_OF_MEMORY"]
# As its arena, cuDNN, cuBLAS and the driver say it.
OUT_OF_MEMORY = r"out of memory|failed to allocate memory|alloc_failed|bad_alloc"
# Crops that a processor computes at once for each of its threads: with more, what lies between two layers leaves the
# cache. Masks are the same to the byte.
PART = 4
TENSOR_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxRuntimeBackend:
    """A `mal-trt export`ed ONNX file in an ONNX Runtime session. See `Backend` for the interface."""

    def __init__(
        self, path: Path, device: str, threads: int | None, index: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        """index: which GPU. options: of the CUDA provider, besides."""
        cuda = (CUDA, {"device_id": str(index), **(options or {})})
        self._session: onnxruntime.InferenceSession | None = _open_session(path, device, threads, cuda)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise InputError(
                f"{path}: an ONNX file without mal-trt's `{METADATA_KEY}` metadata "
                f"(crop size, margins, thresholds); {REEXPORT}"
            )
        self.contract = Contract.from_json(metadata[METADATA_KEY], str(path))
        self.provider: str = self._session.get_providers()[0]
        self.outputs = tuple(o.name for o in self._session.get_outputs() if o.name.startswith(LOGITS))
        self._has_grid = _check_signature(self._session, self.contract, path)
        self._path = path
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._part = PART * (threads or cores) if self.provider == CPU else None

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        if self._session is None:
            raise RunError(f"{self._path}: this backend is closed; open it again")
        check_image(image, self.contract)
        whole = np.ascontiguousarray(image, dtype=self.contract.input_dtype)
        feeds = {}
        if self._has_grid:
            grid = self.contract.grid(size)
            feeds["head_grid"] = np.zeros((1, 1, grid, grid), np.uint8)
        output, step = self.output(weights), self._part or max(1, len(whole))
        try:
            parts = [
                self._session.run([output], {"image": whole[start : start + step], **feeds})[0]
                for start in range(0, max(1, len(whole)), step)
            ]
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise failed_run(self._path, len(image), error) from error
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if np.isnan(logits).any():
            raise NanLogits(f"{self._path}: the model gave NaN logits; export it with --precision fp32")
        return np.asarray(logits, np.float32)

    def output(self, weights: str | None) -> str:
        """Name of the graph output holding the logits of some weights; see `output_name`."""
        return output_name(weights, self.contract, self.outputs, str(self._path))

    def close(self) -> None:
        """See `Backend.close`."""
        self._session = None


def _open_session(
    path: Path, device: str, threads: int | None, cuda: tuple[str, dict[str, str]]
) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RunError(
            f"onnxruntime cannot be imported ({one_line(error)}); "
            "install it with `pip install 'mal-trt[cpu]'` or `pip install 'mal-trt[gpu]'`"
        ) from error
    available = ort.get_available_providers()
    if device == "cuda" and CUDA not in available:
        raise InputError(
            f"device cuda: this onnxruntime has no CUDA provider (it has {', '.join(available)}); "
            "install `mal-trt[gpu]` instead of `mal-trt[cpu]`, or use --device cpu"
        )
    wanted: list[Any] = [cuda, CPU] if device != "cpu" and CUDA in available else [CPU]
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters is raised; the rest would spoil the one-line errors
    # A network thread that spins while it waits takes the core from decoding, cropping and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its 8-bit kernels overflow on processors without VNNI, where INT8 masks fall apart, and gain nothing for ours.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if wanted[0] != CPU and device == "auto":
        ort.set_default_logger_severity(4)  # a CUDA that does not load is no news when nobody asked for it
    try:
        with redirect_stdout(StringIO()):  # both calls print what they miss
            if wanted[0] != CPU and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
            try:
                session = ort.InferenceSession(str(path), options, providers=wanted)
            except Exception as error:
                if "float8" not in str(error):
                    raise
                # Its optimiser moves Transposes between Q and DQ, where they cannot take FP8.
                options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
                session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's exceptions share no base class
        if _memory_ran_out(error):
            raise RunError(f"{path}: ONNX Runtime cannot load it ({one_line(error)}); {MEMORY_ADVICE}") from error
        raise InputError(
            f"{path}: ONNX Runtime cannot load it ({one_line(error)}); is it a whole ONNX file?"
        ) from error
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise InputError(
            f"device cuda: ONNX Runtime fell back to {session.get_providers()[0]}; check the NVIDIA driver, "
            f"and that CUDA and cuDNN match onnxruntime-gpu {ort.__version__}, or use --device cpu"
        )
    return session


def _check_signature(session: onnxruntime.InferenceSession, contract: Contract, path: Path) -> bool:
    """Whether the graph takes `head_grid`; InputError if graph and contract disagree."""
    inputs: dict[str, Any] = {i.name: i for i in session.get_inputs()}
    expected = {"image", "head_grid"} if contract.head == "dynamic" else {"image"}
    if set(inputs) != expected:
        raise InputError(
            f"{path}: its inputs are {sorted(inputs)}, but its metadata (head {contract.head}) promises "
            f"{sorted(expected)}; {REEXPORT}"
        )
    kind = inputs["image"].type
    if kind != TENSOR_TYPES[contract.input_dtype]:
        raise InputError(f"{path}: `image` is {kind}, its metadata says {contract.input_dtype}; {REEXPORT}")
    if LOGITS not in [o.name for o in session.get_outputs()]:
        raise InputError(f"{path}: it has no output called `{LOGITS}`; {REEXPORT}")
    return "head_grid" in inputs


def failed_run(path: Path, count: int, error: BaseException) -> RunError:
    """The error of a batch that ONNX Runtime could not run, with what to do where memory ran out."""
    advice = f"; {MEMORY_ADVICE}" if _memory_ran_out(error) else ""
    return RunError(f"{path}: ONNX Runtime failed on a batch of {count}: {one_line(error)}{advice}")


def _memory_ran_out(error: BaseException) -> bool:
    return re.search(OUT_OF_MEMORY, str(error), re.IGNORECASE) is not None


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."
