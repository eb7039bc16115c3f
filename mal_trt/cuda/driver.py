"""What the runtime needs of CUDA: one small interface, whoever provides it.

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


ADVICE = MappingProxyType(
    {
        "CUDA_ERROR_OUT_OF_MEMORY": "use a smaller --batch, or close other programs that use the GPU",
        "CUDA_ERROR_NO_DEVICE": "the driver sees no GPU (a container needs `--gpus all` or the NVIDIA runtime)",
        "CUDA_ERROR_INVALID_DEVICE": "there is no GPU of that number; `mal-trt doctor` lists them",
        "CUDA_ERROR_DEVICE_UNAVAILABLE": "another program holds the GPU for itself alone",
        "CUDA_ERROR_INSUFFICIENT_DRIVER": "install a newer NVIDIA driver",
        "CUDA_ERROR_STUB_LIBRARY": "libcuda is the toolkit's stub; install NVIDIA's driver",
        "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "driver and libraries have different versions; restart the machine",
        "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "install a newer NVIDIA driver",
        "CUDA_ERROR_NO_BINARY_FOR_GPU": "update cuda-bindings and nvidia-cuda-nvrtc, which do not know this GPU",
        "CUDA_ERROR_ECC_UNCORRECTABLE": "the GPU's memory is faulty; restart the machine",
        "CUDA_ERROR_DEVICE_LOST": "the GPU fell off the bus; restart the machine",
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
    """One GPU through one provider. Every method but `close` needs `current()` around it in the calling thread.

    provider: "cuda-python" or "pycuda". Each failing call raises CudaError. Streams are non-default and do not wait
    for the default one. Copies and launches are queued on their stream and return at once; the memory they touch
    must stay alive and unchanged until then.
    """

    provider: str
    device: Device

    @property
    def living(self) -> dict[str, int]:
        """How many of each kind were made and not let go of yet: memory, pinned, stream, event, module, graph."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the device's primary context this thread's; may be nested."""
        ...

    def close(self) -> None:
        """Let go of all that is still living, and of the context; may be called twice."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device."""
        ...

    def allocate(self, size: int) -> int:
        """Pointer to `size` bytes on the device, aligned to 256."""
        ...

    def free(self, pointer: int) -> None: ...

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        """Page-locked host memory, uint8 [size], and the pointer by which the GPU reaches it (0 where it cannot)."""
        ...

    def free_pinned(self, memory: np.ndarray) -> None: ...

    def create_stream(self) -> int: ...

    def destroy_stream(self, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work queued on a stream is done; raises what went wrong in it."""
        ...

    def create_event(self, timing: bool = False) -> int: ...

    def destroy_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...

    def wait(self, stream: int, event: int) -> None:
        """What is queued on `stream` from now on waits for `event`; the caller does not."""
        ...

    def synchronize_event(self, event: int) -> None: ...

    def elapsed(self, first: int, second: int) -> float:
        """Seconds between two recorded and finished events made with timing."""
        ...

    def copy_to_device(self, pointer: int, memory: np.ndarray, stream: int) -> None:
        """Queue a copy of a contiguous array; without page-locked memory it may block."""
        ...

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None: ...

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        """Queue setting `size` bytes to one value."""
        ...

    def compile(self, source: str) -> bytes:
        """A file of mal_trt/cuda/kernels, such as "crop.cu", compiled for the device: what `load_module` takes."""
        ...

    def load_module(self, image: bytes) -> Any:
        """Load a cubin."""
        ...

    def unload_module(self, module: Any) -> None: ...

    def function(self, module: Any, name: str) -> Any:
        """A kernel of a loaded module, by its extern "C" name."""
        ...

    def launch(
        self, function: Any, grid: Grid, block: Grid, stream: int, arguments: Sequence[np.generic], shared: int = 0
    ) -> None:
        """Queue a kernel. arguments: NumPy scalars of the parameters' types; pointers as uint64. shared: bytes."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From now on calls on `stream` are recorded instead of run, for this thread alone (thread-local mode)."""
        ...

    def end_capture(self, stream: int) -> int:
        """The recorded calls as an executable graph. CudaError if something in between could not be recorded; the
        stream is usable again either way."""
        ...

    def launch_graph(self, graph: int, stream: int) -> None: ...

    def destroy_graph(self, graph: int) -> None: ...
