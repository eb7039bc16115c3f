"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mal_trt.artifacts.contract import CPU_TARGET, METADATA_KEY, REEXPORT, Contract
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.backends.failures import check_memory, failed_run
from mal_trt.backends.signature import LOGITS, check_graph, check_image, output_name
from mal_trt.base.errors import InputError, NanLogits, RunError, one_line
from mal_trt.base.processor import usable_cores
from mal_trt.geometry.boxes import SizeClass

if TYPE_CHECKING:
    import onnxruntime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Crops that a processor computes at once for each of its threads: with more, results between two layers do not fit the
# cache. Masks are the same to the byte.
PART = 4
OPTIMISER_FAILED = ("float8", "core/optimizer/")  # in messages of a file that runs without the optimiser
TENSOR_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntimeBackend:
    """A `mal-trt export`ed ONNX file in an ONNX Runtime session. See `Backend` for the interface."""

    def __init__(
        self, path: Path, device: str, threads: int | None, index: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        """index: which GPU. options: further ones of the CUDA provider."""
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
        self.precision = self.contract.precision
        self.notes: list[str] = []
        names = [o.name for o in self._session.get_outputs()]
        self.outputs = tuple(name for name in names if name.startswith(LOGITS))
        inputs = {i.name: TENSOR_TYPES.get(i.type, i.type) for i in self._session.get_inputs()}
        self._has_grid = check_graph(inputs, names, self.contract, path)
        self._path = path
        self._part = PART * (threads or usable_cores()) if self.provider == CPU else None

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        if self._session is None:
            raise RunError(f"{self._path}: this backend is closed; open it again")
        check_image(image, self.contract, size)
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
            raise failed_run("ONNX Runtime", self._path, len(image), error, self.provider != CPU) from error
        logits = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if np.isnan(logits).any():
            raise NanLogits(f"{self._path}: the model gave NaN logits; export it with --precision fp32")
        return np.asarray(logits, np.float32)

    def output(self, weights: str | None) -> str:
        """Name of the graph's output with the logits of some weights; see `output_name`."""
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
    # Its 8-bit kernels overflow on processors without VNNI unless weights have 7 bits, as those made for them have.
    if wanted != [CPU] or not _for_processors(path):
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    if wanted[0] != CPU and device == "auto":
        ort.set_default_logger_severity(4)  # nobody asked for CUDA, so it need not be told that it does not load
    try:
        with redirect_stdout(StringIO()):  # both calls print what is missing
            if wanted[0] != CPU and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()
            try:
                session = ort.InferenceSession(str(path), options, providers=wanted)
            except Exception as error:
                if not any(sign in str(error) for sign in OPTIMISER_FAILED):
                    raise
                # Its optimiser moves Transposes between Q and DQ, where they cannot take FP8, and trips over a Clip.
                options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
                session = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's exceptions share no base class
        check_memory("ONNX Runtime", path, error, wanted != [CPU])
        raise InputError(
            f"{path}: ONNX Runtime cannot load it ({one_line(error)}); is it a whole ONNX file?"
        ) from error
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise InputError(
            f"device cuda: ONNX Runtime fell back to {session.get_providers()[0]}; check the NVIDIA driver, "
            f"and that CUDA and cuDNN match onnxruntime-gpu {ort.__version__}, or use --device cpu"
        )
    return session


def _for_processors(path: Path) -> bool:
    """Whether a file was made by `calibrate --target cpu`; False, too, if it cannot be read: the session says why."""
    try:
        return read_contract(path).target == CPU_TARGET
    except InputError:
        return False
