"""ONNX Runtime's CUDA provider with batches that stay on the GPU."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.backends.failures import failed_run
from mal_trt.backends.onnxruntime import CUDA, OnnxRuntimeBackend
from mal_trt.backends.signature import LOGITS
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.geometry.boxes import SizeClass

MOST = 1024  # it takes any number of crops that fit the memory
# No search for the best convolution with every new size of batch; and an arena that grows by what is asked for, not to
# the next power of two, since the crops and masks need memory of the same GPU.
OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
# Return when the batch is queued, not when it is done.
QUEUE_ONLY = ("disable_synchronize_execution_providers", "1")


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """An ONNX file on one GPU. See `DeviceBackend` for the interface.

    All runs are queued on one stream, ONNX Runtime's `user_compute_stream`, which the callers' streams wait for.
    """

    def __init__(self, path: Path, device: str, threads: int | None, driver: Driver) -> None:
        """driver: closed with the backend. InputError if the provider does not really run on the GPU."""
        self.driver = driver
        self._lock = Lock()
        self._closing = ExitStack()
        self._is_open = True
        self._stream = 0
        try:
            with driver.current():
                self._stream = driver.create_stream()
                self._closing.callback(driver.destroy_stream, self._stream)
                self._ready, self._done = (self._event() for _ in range(2))
                # FP32 is FP32, not TF32. But without TF32 convolutions in FP16 get no tensor cores either.
                tf32 = "0" if read_contract(Path(path)).precision == "fp32" else "1"
                options = {**OPTIONS, "use_tf32": tf32, "user_compute_stream": str(self._stream)}
                super().__init__(path, device, threads, driver.device.index, options)
                if self.provider != CUDA:
                    raise InputError(f"{path}: ONNX Runtime runs it on {self.provider}, not on the GPU")
                self._grid = DeviceBuffer(driver)  # only the dimensions of `head_grid` count
                self._closing.callback(self._grid.close)
                self._grid.reserve(self.contract.grid(SizeClass.LARGE) ** 2)
                self._side = self._logits_side()
        except BaseException:
            self.close()
            raise

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        """See `Backend.run`."""
        with self._lock:
            return super().run(image, size, weights)

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        """See `DeviceBackend.enqueue`."""
        if not 1 <= count <= MOST:
            raise InputError(f"a batch of {count}: expected 1 to {MOST}")
        output = self.output(weights)
        side, into = self.contract.side(size), self.logits_side(size)
        with self._lock, self.driver.current():
            if self._session is None:
                raise RunError(f"{self._path}: this backend is closed; open it again")
            self.driver.record(self._ready, stream)
            self.driver.wait(self._stream, self._ready)
            try:
                binding = self._session.io_binding()
                place = ("cuda", self.driver.device.index)
                dtype = np.dtype(self.contract.input_dtype).type
                binding.bind_input("image", *place, dtype, (count, 3, side, side), image)
                if self._has_grid:
                    grid = self.contract.grid(size)
                    binding.bind_input("head_grid", *place, np.uint8, (1, 1, grid, grid), self._grid.pointer)
                binding.bind_output(output, *place, np.float32, (count, 1, into, into), logits)
                self._session.run_with_iobinding(binding, _run_options())
            except Exception as error:  # onnxruntime's exceptions share no base class
                raise failed_run("ONNX Runtime", self._path, count, error, on_gpu=True) from error
            finally:
                # Also after a failure: what was queued before it still uses the caller's memory.
                with suppress(CudaError):
                    self.driver.record(self._done, self._stream)
                    self.driver.wait(stream, self._done)

    def most(self, size: SizeClass) -> int:
        """See `DeviceBackend.most`."""
        return MOST

    def least(self, size: SizeClass) -> int:
        """See `DeviceBackend.least`."""
        return 1

    def logits_side(self, size: SizeClass) -> int:
        """See `DeviceBackend.logits_side`."""
        return self.contract.side(size) * self._side // self.contract.input_size

    def close(self) -> None:
        """See `Backend.close`."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(CudaError), self.driver.current():  # a GPU that was lost frees everything by itself
            if self._stream:
                with suppress(CudaError):
                    self.driver.synchronize(self._stream)
            super().close()
            self._closing.close()
        self.driver.close()

    def _event(self) -> int:
        event = self.driver.create_event()
        self._closing.callback(self.driver.destroy_event, event)
        return event

    def _logits_side(self) -> int:
        assert self._session is not None
        told = next(o.shape[-1] for o in self._session.get_outputs() if o.name == LOGITS)
        return told if isinstance(told, int) else self.contract.logits_side(SizeClass.LARGE)


def open_on_gpu(path: Path, device: str, threads: int | None, index: int) -> OnnxRuntimeCudaBackend | None:
    """The backend, or None without ONNX Runtime's CUDA provider or a package that talks to CUDA.

    device: with "auto" also None where the model cannot be opened on the GPU; with "cuda" that raises InputError or
    RunError.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    if CUDA not in onnxruntime.get_available_providers():
        return None
    from mal_trt.cuda.open import open_driver

    try:
        driver = open_driver(index)
    except MalTrtError:  # ONNX Runtime can do without
        return None
    try:
        return OnnxRuntimeCudaBackend(path, device, threads, driver)
    except MalTrtError:
        if device == "cuda":
            raise
        return None


def _run_options() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(*QUEUE_ONLY)
    return options
