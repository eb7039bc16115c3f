"""OpenVINO: the backend for processors that compute in half precision. What runs everywhere is `onnxruntime`."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from mal_trt.artifacts.contract import CPU_TARGET, Contract
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.backends.failures import check_memory, failed_run
from mal_trt.backends.signature import LOGITS, check_graph, check_image, output_name
from mal_trt.base.errors import InputError, NanLogits, RunError, one_line
from mal_trt.base.processor import native_half, native_int8, usable_cores
from mal_trt.geometry.boxes import SizeClass

if TYPE_CHECKING:
    import openvino

# Crops that a stream computes at once for each of its threads; see `onnxruntime.PART`.
PART = 4
# Batches that may be under way at once, however few the streams: one is filled while another computes.
LEAST_REQUESTS = 2
# OpenVINO's names of types -> ours.
PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
ELEMENTS = {"u8": "uint8", "f32": "float32"}
INPUTS = ("image", "head_grid")


class OpenVinoBackend:
    """A `mal-trt export`ed ONNX file, compiled by OpenVINO. See `Backend` for the interface.

    Parts of a batch are computed by several infer requests at once, which all callers share. The provider says in
    which precision: FP32 files in the half precision that the processor has, if it has one; FP16 files in FP32; INT8
    files in INT8, if its sums of products cannot overflow.
    """

    def __init__(self, path: Path, threads: int | None, lanes: int = 1) -> None:
        """threads, lanes: see `open_backend`."""
        self.contract: Contract = read_contract(path)
        self._path = path
        threads = (threads or usable_cores()) * lanes
        # One caller wants its few crops soon: all threads work on them. Several callers together want many crops.
        streams = threads if lanes > 1 else 1
        self._compiled: openvino.CompiledModel | None = _compile(path, self.contract, threads, streams)
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        computes = "int8" if self.contract.precision == "int8" else PRECISIONS.get(hint, hint)
        self.precision = computes if self.contract.precision == "fp32" else self.contract.precision
        self.provider = f"OpenVINO ({computes})"
        self.notes: list[str] = []
        kinds = {_name(port): port.element_type.get_type_name() for port in self._compiled.inputs}
        names = [_name(port) for port in self._compiled.outputs]
        inputs = {name: ELEMENTS.get(kind, kind) for name, kind in kinds.items()}
        self._has_grid = check_graph(inputs, names, self.contract, path)
        self.outputs = tuple(name for name in names if name.startswith(LOGITS))
        self._part = PART * max(1, threads // streams)
        self._free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(max(LEAST_REQUESTS, streams)):
            self._free.put(self._compiled.create_infer_request())

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        if self._compiled is None:
            raise RunError(f"{self._path}: this backend is closed; open it again")
        check_image(image, self.contract, size)
        output = output_name(weights, self.contract, self.outputs, str(self._path))
        whole = np.ascontiguousarray(image, dtype=self.contract.input_dtype)
        feeds = {}
        if self._has_grid:
            grid = self.contract.grid(size)
            feeds["head_grid"] = np.zeros((1, 1, grid, grid), np.uint8)
        try:
            logits = np.concatenate(self._parts(whole, feeds, output))
        except RuntimeError as error:  # the only kind that OpenVINO raises
            raise failed_run("OpenVINO", self._path, len(image), error) from error
        if np.isnan(logits).any():
            raise NanLogits(f"{self._path}: OpenVINO gave NaN logits; run it with --backend onnxruntime")
        return logits

    def _parts(self, whole: np.ndarray, feeds: dict[str, np.ndarray], output: str) -> list[np.ndarray]:
        """Logits of a batch, part by part. Who waits for a free request holds none, so that nobody waits for ever."""
        found: list[np.ndarray] = []
        under_way: deque[openvino.InferRequest] = deque()

        def finish() -> None:
            request = under_way.popleft()
            try:
                request.wait()
                found.append(np.array(request.get_tensor(output).data, np.float32))
            finally:
                self._free.put(request)

        try:
            for start in range(0, max(1, len(whole)), self._part):
                while under_way and self._free.empty():
                    finish()
                request = self._free.get()
                under_way.append(request)
                request.start_async({"image": whole[start : start + self._part], **feeds})
            while under_way:
                finish()
        finally:
            while under_way:
                request = under_way.popleft()
                request.cancel()
                self._free.put(request)
        return found

    def close(self) -> None:
        """See `Backend.close`."""
        self._compiled = None
        self._free = SimpleQueue()


def _precision(path: Path, contract: Contract) -> str:
    """The precision in which OpenVINO shall compute a file; InputError if its results would be wrong in any."""
    if contract.precision == "int8" and contract.target != CPU_TARGET and not native_int8():
        raise InputError(
            f"{path}: an INT8 model, whose sums could overflow in OpenVINO on this processor, which has no VNNI; run "
            "it with --backend onnxruntime, or make it with `calibrate --target cpu`"
        )
    if contract.precision not in ("fp32", "fp16", "int8"):
        raise InputError(
            f"{path}: OpenVINO does not run {contract.precision} models; run it with --backend onnxruntime"
        )
    half = native_half() if contract.precision == "fp32" else None
    return next(name for name, ours in PRECISIONS.items() if ours == (half or "fp32"))


def _name(port: openvino.ConstOutput) -> str:
    """The file's own name of an input or output: OpenVINO adds the names of nodes beside it that do nothing."""
    ours = sorted(name for name in port.names if name in INPUTS or name.startswith(LOGITS))
    return ours[0] if ours else str(port.any_name)


def _compile(path: Path, contract: Contract, threads: int, streams: int) -> openvino.CompiledModel:
    try:
        import openvino
    except ImportError as error:
        raise RunError(
            f"openvino cannot be imported ({one_line(error)}); install it with `pip install 'mal-trt[openvino]'`"
        ) from error
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _precision(path, contract),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
        # Decoding and other runs want the same cores, and a thread that is tied to one waits there.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return openvino.Core().compile_model(str(path), "CPU", config)
    except RuntimeError as error:
        check_memory("OpenVINO", path, error)
        raise InputError(
            f"{path}: OpenVINO cannot load it ({one_line(error)}); run it with --backend onnxruntime"
        ) from error
