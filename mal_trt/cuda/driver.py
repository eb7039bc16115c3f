"""What the runtime needs of CUDA: one small interface, whichever package provides it.

Pointers, streams, events and graphs are plain integers, as TensorRT and ONNX Runtime take them too. Everything works
in the device's primary context, which PyTorch and ONNX Runtime share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mal_trt.base.errors import RunError

Grid = tuple[int, int, int]


class CudaError(RunError):
    """A CUDA call failed: which operation, and CUDA's own name for what went wrong.

    code: CUDA's name of the error, such as "CUDA_ERROR_OUT_OF_MEMORY".
    """

    def __init__(self, operation: str, code: str, advice: str = "") -> None:
        super().__init__(f"CUDA: {operation} failed with {code}" + (f"; {advice}" if advice else ""))
        self.operation, self.code = operation, code


# After these CUDA refuses every further call of the process.
SPOILT = "this process cannot use the GPU any more: run it again, and report it if it fails there again"
ADVICE = MappingProxyType(
    {
        "CUDA_ERROR_OUT_OF_MEMORY": "use a smaller --batch, or close other programs that use the GPU",
        "CUDA_ERROR_NO_DEVICE": "the driver sees no GPU (a container needs `--gpus all` or the NVIDIA runtime)",
        "CUDA_ERROR_INVALID_DEVICE": "there is no GPU of that number; `mal-trt doctor` lists them",
        "CUDA_ERROR_DEVICE_UNAVAILABLE": "another program holds the GPU for itself alone",
        "CUDA_ERROR_STUB_LIBRARY": "libcuda is the toolkit's stub; install NVIDIA's driver",
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "driver and libraries have different versions; restart the machine",
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "install a newer NVIDIA driver",
        "CUDA_ERROR_NO_BINARY_FOR_GPU": "update cuda-bindings and nvidia-cuda-nvrtc, which do not know this GPU",
        "CUDA_ERROR_ECC_UNCORRECTABLE": "the GPU's memory is faulty; restart the machine",
        "CUDA_ERROR_ILLEGAL_ADDRESS": SPOILT,
        "CUDA_ERROR_MISALIGNED_ADDRESS": SPOILT,
        "CUDA_ERROR_ILLEGAL_INSTRUCTION": SPOILT,
        "CUDA_ERROR_LAUNCH_FAILED": SPOILT,
        "CUDA_ERROR_LAUNCH_TIMEOUT": "the GPU serves a screen too, and such work must be short; use a smaller --batch",
        "CUDA_ERROR_UNKNOWN": "restart the machine if it happens again",
    }
)


def failure(operation: str, code: str) -> CudaError:
    """The error of a failed call, with advice where there is one."""
    return CudaError(operation, code, ADVICE.get(code, ""))


@dataclass(frozen=True)
class Device:
    """One GPU. compute_capability: (8, 6). integrated: it shares the processor's memory, as on a Jetson."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    integrated: bool


class Driver(Protocol):
    """One GPU through one provider. Every method but `close` and `compile` needs `current()` around it in the calling
    thread.

    provider: "cuda-python" or "pycuda". Each call that fails raises CudaError, also for what failed earlier on the GPU.
    Streams are non-default and do not wait for the default one. Copies, fills and launches are queued on their stream
    and return at once; the memory they touch must stay alive and unchanged until the stream has come to them.
    """

    provider: str
    device: Device

    @property
    def living(self) -> dict[str, int]:
        """How many of each kind were made and not freed yet: memory, pinned, stream, event, module, graph."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the device's primary context that of the calling thread for a `with` block; may be nested."""
        ...

    def close(self) -> None:
        """Wait for all streams, free what is still living and leave the context. Never raises; may be called twice."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        ...

    def allocate(self, size: int) -> int:
        """Pointer to `size` bytes on the device, 1 or more, aligned to 256; their content is undefined."""
        ...

    def free(self, pointer: int) -> None:
        """Free memory of `allocate`, given its pointer. It may wait for all that is queued on the device."""
        ...

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        """Page-locked host memory, uint8 [size], and the pointer by which the GPU reaches it (0 if it cannot)."""
        ...

    def free_pinned(self, memory: np.ndarray) -> None:
        """Free memory of `allocate_pinned`, given its array; no view of it may be used afterwards."""
        ...

    def create_stream(self) -> int:
        """A new stream, which runs beside all others."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Give a stream up; what is queued on it still runs."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work queued on a stream is done; CudaError if some of it failed."""
        ...

    def create_event(self, timing: bool = False) -> int:
        """A new event, a mark in a stream. timing: `elapsed` will be asked; waiting for it is then slower."""
        ...

    def destroy_event(self, event: int) -> None:
        """Give an event up; what waits for it still does."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Put the mark behind all that is queued on a stream now; it is no longer where it was before."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """Let what is queued on `stream` from now on wait for where `event` is recorded now; the caller does not wait.
        An event that was never recorded holds nothing up."""
        ...

    def synchronize_event(self, event: int) -> None:
        """Wait until the stream has come to an event; CudaError if work before it failed."""
        ...

    def elapsed(self, first: int, second: int) -> float:
        """Seconds between two events made with timing, to both of which their streams have come; else CudaError."""
        ...

    def copy_to_device(self, pointer: int, memory: np.ndarray, stream: int) -> None:
        """Queue a copy of a contiguous array to `pointer`; from memory that is not page-locked it may block."""
        ...

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None:
        """Queue a copy from `pointer` into a contiguous array, of all its bytes; otherwise as `copy_to_device`."""
        ...

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        """Queue setting `size` bytes at `pointer` to a value, 0 to 255."""
        ...

    def compile(self, source: str) -> bytes:
        """A file of mal_trt/cuda/kernels, such as "crop.cu", compiled for the device, as `load_module` takes it.
        RunError if there is no compiler, or if it refuses."""
        ...

    def load_module(self, image: bytes) -> Any:
        """Load machine code (cubin), or PTX, which the driver compiles; a handle for `function`."""
        ...

    def unload_module(self, module: Any) -> None:
        """Unload it with its kernels; no queued work may use them."""
        ...

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a loaded module, by its extern "C" name."""
        ...

    def launch(
        self, function: Any, grid: Grid, block: Grid, stream: int, arguments: Sequence[np.generic], shared: int = 0
    ) -> None:
        """Queue a kernel.

        grid: blocks along x, y, z, at most 2^31 - 1, 65,535 and 65,535. block: threads of a block likewise, at most
        1,024 in all. arguments: NumPy scalars of the parameters' types; pointers as uint64. shared: bytes of dynamic
        shared memory of each block.
        """
        ...

    def begin_capture(self, stream: int) -> None:
        """Record calls on `stream` from now on instead of running them. Until `end_capture` this thread must neither
        allocate nor wait; other threads may (thread-local mode)."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded calls as an executable graph. CudaError if something in between could not be recorded; the
        stream is usable again either way."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue all calls of a graph, with the addresses they were recorded with; one launch of a graph at a time."""
        ...

    def destroy_graph(self, graph: int) -> None:
        """Free a graph, which must not be running."""
        ...
