"""The driver by pycuda, for JetPack's containers and for those who have it already.

pycuda hands out objects whose end frees what they stand for; they are kept here under the integers that the interface
speaks of. It has no graph capture, and an event's integer is our own, unknown to CUDA.
"""

from __future__ import annotations

import atexit
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from mal_trt.cuda.compile import compiled
from mal_trt.cuda.driver import CudaError, Device, Grid, failure
from mal_trt.cuda.holdings import Holdings

MODULE = "pycuda.driver"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: pycuda passes a stream's flags on, but has no name for this one
# pycuda's errors hold CUDA's text, not its name of the error.
NAMES = MappingProxyType(
    {
        "out of memory": "CUDA_ERROR_OUT_OF_MEMORY",
        "invalid argument": "CUDA_ERROR_INVALID_VALUE",
        "initialization error": "CUDA_ERROR_NOT_INITIALIZED",
        "no CUDA-capable device is detected": "CUDA_ERROR_NO_DEVICE",
        "invalid device ordinal": "CUDA_ERROR_INVALID_DEVICE",
        "device kernel image is invalid": "CUDA_ERROR_INVALID_IMAGE",
        "invalid device context": "CUDA_ERROR_INVALID_CONTEXT",
        "no kernel image is available for execution on the device": "CUDA_ERROR_NO_BINARY_FOR_GPU",
        "the provided PTX was compiled with an unsupported toolchain.": "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "invalid resource handle": "CUDA_ERROR_INVALID_HANDLE",
        "CUDA driver is a stub library": "CUDA_ERROR_STUB_LIBRARY",
        "CUDA-capable device(s) is/are busy or unavailable": "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "system has unsupported display driver / cuda driver combination": "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "uncorrectable ECC error encountered": "CUDA_ERROR_ECC_UNCORRECTABLE",
        "named symbol not found": "CUDA_ERROR_NOT_FOUND",
        "device not ready": "CUDA_ERROR_NOT_READY",
        "an illegal memory access was encountered": "CUDA_ERROR_ILLEGAL_ADDRESS",
        "misaligned address": "CUDA_ERROR_MISALIGNED_ADDRESS",
        "an illegal instruction was encountered": "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "too many resources requested for launch": "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        "the launch timed out and was terminated": "CUDA_ERROR_LAUNCH_TIMEOUT",
        "unspecified launch failure": "CUDA_ERROR_LAUNCH_FAILED",
        "unknown error": "CUDA_ERROR_UNKNOWN",
    }
)
# Retained once for the process: pycuda leaves a context that it detaches current in its thread, so each driver
# that closed would leave one behind.
_contexts: dict[int, Any] = {}
_drivers: weakref.WeakSet[PycudaDriver] = weakref.WeakSet()


@contextmanager
def _named(cuda: Any, operation: str) -> Iterator[None]:
    """Turn pycuda's error into ours."""
    try:
        yield
    except cuda.Error as error:
        # "cuMemAlloc failed: out of memory", and for modules " - " with the log
        said = str(error).partition(" failed: ")[2].partition(" - ")[0] or str(error)
        raise failure(operation, NAMES.get(said, said)) from None


class PycudaDriver:
    """See mal_trt.cuda.driver.Driver. Opened by `open_driver`."""

    provider = "pycuda"

    def __init__(self, index: int) -> None:
        self._cuda = cuda = import_module(MODULE)
        with _named(cuda, "starting CUDA"):
            cuda.init()
        with _named(cuda, "opening the GPU"):
            device = cuda.Device(index)
            self.device = Device(
                index,
                device.name(),
                (int(device.compute_capability()[0]), int(device.compute_capability()[1])),
                bool(device.get_attribute(cuda.device_attribute.INTEGRATED)),
            )
            self._mappable = bool(device.get_attribute(cuda.device_attribute.CAN_MAP_HOST_MEMORY))
            self._context = _primary_context(device, index)
        self._held = Holdings()
        self._numbers = itertools.count(1)
        self._finalizer = weakref.finalize(self, _let_go, cuda, self._context, self._held)
        _drivers.add(self)

    @property
    def living(self) -> dict[str, int]:
        return self._held.counts()

    @contextmanager
    def current(self) -> Iterator[None]:
        if not self._finalizer.alive:
            raise CudaError("using the GPU", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "the driver was closed")
        with _named(self._cuda, "switching to the GPU"):
            self._context.push()
        try:
            yield
        finally:
            with suppress(self._cuda.Error):  # it would hide the block's own
                self._context.pop()

    def close(self) -> None:
        self._finalizer()

    def memory(self) -> tuple[int, int]:
        with _named(self._cuda, "asking for free GPU memory"):
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        with _named(self._cuda, f"allocating {size} bytes of GPU memory"):
            allocation = self._cuda.mem_alloc(size)
        self._held.add("memory", int(allocation), self._freeing("freeing GPU memory", allocation.free))
        return int(allocation)

    def free(self, pointer: int) -> None:
        self._held.release("memory", pointer)

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        cuda = self._cuda
        flags = cuda.host_alloc_flags.DEVICEMAP if self._mappable else 0
        with _named(cuda, f"allocating {size} bytes of page-locked memory"):
            memory: np.ndarray = cuda.pagelocked_empty(size, np.uint8, mem_flags=flags)
            mapped = int(memory.base.get_device_pointer()) if self._mappable else 0  # type: ignore[union-attr]
        free: Callable[[], None] = memory.base.free  # type: ignore[union-attr]
        self._held.add("pinned", memory.ctypes.data, self._freeing("freeing page-locked memory", free))
        return memory, mapped

    def free_pinned(self, memory: np.ndarray) -> None:
        self._held.release("pinned", memory.ctypes.data)

    def create_stream(self) -> int:
        with _named(self._cuda, "creating a stream"):
            stream = self._cuda.Stream(NON_BLOCKING)
        self._held.add("stream", int(stream.handle), _forget, stream)
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        self._held.release("stream", stream)

    def synchronize(self, stream: int) -> None:
        with _named(self._cuda, "waiting for a stream"):
            self._stream(stream).synchronize()

    def create_event(self, timing: bool = False) -> int:
        flags = self._cuda.event_flags
        with _named(self._cuda, "creating an event"):
            event = self._cuda.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING)
        number = next(self._numbers)
        self._held.add("event", number, _forget, event)
        return number

    def destroy_event(self, event: int) -> None:
        self._held.release("event", event)

    def record(self, event: int, stream: int) -> None:
        with _named(self._cuda, "recording an event"):
            self._event(event).record(self._stream(stream))

    def wait(self, stream: int, event: int) -> None:
        with _named(self._cuda, "letting a stream wait"):
            self._stream(stream).wait_for_event(self._event(event))

    def synchronize_event(self, event: int) -> None:
        with _named(self._cuda, "waiting for an event"):
            self._event(event).synchronize()

    def elapsed(self, first: int, second: int) -> float:
        with _named(self._cuda, "reading the time between two events"):
            return float(self._event(second).time_since(self._event(first))) / 1e3

    def copy_to_device(self, pointer: int, memory: np.ndarray, stream: int) -> None:
        with _named(self._cuda, "copying to the GPU"):
            self._cuda.memcpy_htod_async(pointer, memory, self._stream(stream))

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None:
        with _named(self._cuda, "copying from the GPU"):
            self._cuda.memcpy_dtoh_async(memory, pointer, self._stream(stream))

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        with _named(self._cuda, "filling GPU memory"):
            self._cuda.memset_d8_async(pointer, value, size, self._stream(stream))

    def compile(self, source: str) -> bytes:
        return compiled(source, self.device)

    def load_module(self, image: bytes) -> Any:
        with _named(self._cuda, "loading kernels"):
            module = self._cuda.module_from_buffer(image)
        number = next(self._numbers)
        self._held.add("module", number, _forget, module)
        return number

    def unload_module(self, module: Any) -> None:
        self._held.release("module", module)

    def function(self, module: Any, name: str) -> Any:
        with _named(self._cuda, f"finding kernel {name}"):
            return self._held.get("module", module).get_function(name)

    def launch(
        self, function: Any, grid: Grid, block: Grid, stream: int, arguments: Sequence[np.generic], shared: int = 0
    ) -> None:
        with _named(self._cuda, "launching a kernel"):
            function(*arguments, grid=grid, block=block, shared=shared, stream=self._stream(stream))

    def begin_capture(self, stream: int) -> None:
        self._no_graphs()

    def end_capture(self, stream: int) -> int:
        self._no_graphs()

    def launch_graph(self, graph: int, stream: int) -> None:
        self._no_graphs()

    def destroy_graph(self, graph: int) -> None:
        self._no_graphs()

    def _no_graphs(self) -> NoReturn:
        raise CudaError("using a graph", "CUDA_ERROR_NOT_SUPPORTED", "pycuda has no graphs; install cuda-bindings")

    def _stream(self, stream: int) -> Any:
        return self._held.get("stream", stream)

    def _event(self, event: int) -> Any:
        return self._held.get("event", event)

    def _freeing(self, operation: str, free: Callable[[], None]) -> Callable[[], None]:
        cuda = self._cuda

        def release() -> None:
            with _named(cuda, operation):
                free()

        return release


def _forget() -> None:
    """The object's own end frees what it stands for; nothing else refers to it."""


def _primary_context(device: Any, index: int) -> Any:
    if index not in _contexts:
        if not _contexts:
            atexit.register(_end)
        _contexts[index] = device.retain_primary_context()
    return _contexts[index]


def _end() -> None:
    for driver in list(_drivers):
        driver.close()
    for context in _contexts.values():
        context.detach()  # left to itself, pycuda would take it for a context that it had made


def _let_go(cuda: Any, context: Any, held: Holdings) -> None:
    with suppress(cuda.Error):
        context.push()
        try:
            for stream in held.handles("stream"):
                with suppress(cuda.Error):
                    held.get("stream", stream).synchronize()  # what is queued may still use what goes now
            held.release_all()
        finally:
            context.pop()
