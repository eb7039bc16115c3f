"""The driver by cuda-python (package cuda-bindings): only calls that are the same in CUDA 12 and 13.

Before 12.9.1 the package holds Python's lock while it waits for the GPU: correct, but slow.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from mal_trt.cuda.compile import compiled
from mal_trt.cuda.driver import CudaError, Device, Grid, failure
from mal_trt.cuda.holdings import Holdings

MODULE = "cuda.bindings.driver"
# All of cuda.bindings.driver that is used; the tests look each of them up. Enumeration -> members.
FUNCTIONS = (
    "cuInit",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease",
    "cuCtxPushCurrent",
    "cuCtxPopCurrent",
    "cuMemGetInfo",
    "cuMemAlloc",
    "cuMemFree",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer",
    "cuMemFreeHost",
    "cuStreamCreate",
    "cuStreamDestroy",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuEventCreate",
    "cuEventDestroy",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuStreamBeginCapture",
    "cuStreamEndCapture",
    "cuGraphInstantiate",
    "cuGraphDestroy",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
)
MEMBERS = MappingProxyType(
    {
        "CUdevice_attribute": (
            "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR",
            "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR",
            "CU_DEVICE_ATTRIBUTE_INTEGRATED",
            "CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY",
        ),
        "CUstreamCaptureMode": ("CU_STREAM_CAPTURE_MODE_THREAD_LOCAL",),
    }
)
# Flags of the driver's binary interface.
NON_BLOCKING, NO_TIMING, DEVICE_MAP = 1, 2, 2
SLOT = 8  # bytes for an argument of a kernel


def check(operation: str, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call a function of cuda.bindings. Returns its value, a tuple of several, or None; CudaError if it failed."""
    try:
        code, *values = function(*arguments)
    except (KeyError, ValueError) as error:  # a driver newer than the bindings may have errors that they do not know
        raise CudaError(operation, f"an unknown error ({error})", "install a newer cuda-bindings") from None
    except RuntimeError as error:  # an older one may lack the function
        raise CudaError(operation, str(error), "install a newer NVIDIA driver") from None
    if int(code):
        raise failure(operation, str(getattr(code, "name", f"error {int(code)}")))
    return values[0] if len(values) == 1 else tuple(values) or None


class CudaPythonDriver:
    """See mal_trt.cuda.driver.Driver. Opened by `open_driver`."""

    provider = "cuda-python"

    def __init__(self, index: int) -> None:
        self._cuda = cuda = import_module(MODULE)
        check("starting CUDA", cuda.cuInit, 0)
        device = check("finding the GPU", cuda.cuDeviceGet, index)
        self.device, self._mappable = _describe(cuda, device, index)
        self._held = Holdings()
        self._context = check("opening the GPU", cuda.cuDevicePrimaryCtxRetain, device)
        # Also when the driver is dropped without close(), and when the interpreter ends.
        self._finalizer = weakref.finalize(self, _let_go, cuda, device, self._context, self._held)

    @property
    def living(self) -> dict[str, int]:
        return self._held.counts()

    @contextmanager
    def current(self) -> Iterator[None]:
        if not self._finalizer.alive:
            raise CudaError("using the GPU", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "the driver was closed")
        check("switching to the GPU", self._cuda.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            with suppress(CudaError):  # it would hide the block's own
                check("switching from the GPU", self._cuda.cuCtxPopCurrent)

    def close(self) -> None:
        self._finalizer()

    def memory(self) -> tuple[int, int]:
        free, total = check("asking for free GPU memory", self._cuda.cuMemGetInfo)
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        cuda = self._cuda
        pointer = int(check(f"allocating {size} bytes of GPU memory", cuda.cuMemAlloc, size))
        self._held.add("memory", pointer, lambda: check("freeing GPU memory", cuda.cuMemFree, pointer))
        return pointer

    def free(self, pointer: int) -> None:
        self._held.release("memory", pointer)

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        cuda = self._cuda
        flags = DEVICE_MAP if self._mappable else 0
        address = int(check(f"allocating {size} bytes of page-locked memory", cuda.cuMemHostAlloc, size, flags))
        self._held.add("pinned", address, lambda: check("freeing page-locked memory", cuda.cuMemFreeHost, address))
        mapped = 0
        if self._mappable:
            mapped = int(check("mapping page-locked memory", cuda.cuMemHostGetDevicePointer, address, 0))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)), mapped

    def free_pinned(self, memory: np.ndarray) -> None:
        self._held.release("pinned", memory.ctypes.data)

    def create_stream(self) -> int:
        cuda = self._cuda
        stream = int(check("creating a stream", cuda.cuStreamCreate, NON_BLOCKING))
        self._held.add("stream", stream, lambda: check("destroying a stream", cuda.cuStreamDestroy, stream))
        return stream

    def destroy_stream(self, stream: int) -> None:
        self._held.release("stream", stream)

    def synchronize(self, stream: int) -> None:
        check("waiting for a stream", self._cuda.cuStreamSynchronize, stream)

    def create_event(self, timing: bool = False) -> int:
        cuda = self._cuda
        event = int(check("creating an event", cuda.cuEventCreate, 0 if timing else NO_TIMING))
        self._held.add("event", event, lambda: check("destroying an event", cuda.cuEventDestroy, event))
        return event

    def destroy_event(self, event: int) -> None:
        self._held.release("event", event)

    def record(self, event: int, stream: int) -> None:
        check("recording an event", self._cuda.cuEventRecord, event, stream)

    def wait(self, stream: int, event: int) -> None:
        check("letting a stream wait", self._cuda.cuStreamWaitEvent, stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        check("waiting for an event", self._cuda.cuEventSynchronize, event)

    def elapsed(self, first: int, second: int) -> float:
        return float(check("reading the time between two events", self._cuda.cuEventElapsedTime, first, second)) / 1e3

    def copy_to_device(self, pointer: int, memory: np.ndarray, stream: int) -> None:
        address = _address(memory)
        check("copying to the GPU", self._cuda.cuMemcpyHtoDAsync, pointer, address, memory.nbytes, stream)

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None:
        address = _address(memory)
        check("copying from the GPU", self._cuda.cuMemcpyDtoHAsync, address, pointer, memory.nbytes, stream)

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        check("filling GPU memory", self._cuda.cuMemsetD8Async, pointer, value, size, stream)

    def compile(self, source: str) -> bytes:
        return compiled(source, self.device)

    def load_module(self, image: bytes) -> Any:
        cuda = self._cuda
        # The buffer of a bytes object ends in a zero byte, which PTX needs.
        address = np.frombuffer(image, np.uint8).ctypes.data
        module = int(check("loading kernels", cuda.cuModuleLoadData, address))
        self._held.add("module", module, lambda: check("unloading kernels", cuda.cuModuleUnload, module))
        return module

    def unload_module(self, module: Any) -> None:
        self._held.release("module", module)

    def function(self, module: Any, name: str) -> Any:
        return check(f"finding kernel {name}", self._cuda.cuModuleGetFunction, module, name.encode())

    def launch(
        self, function: Any, grid: Grid, block: Grid, stream: int, arguments: Sequence[np.generic], shared: int = 0
    ) -> None:
        # The driver takes the arguments' addresses, and copies the arguments before it returns.
        values = b"".join([argument.tobytes().ljust(SLOT, b"\0") for argument in arguments])
        if len(values) != SLOT * len(arguments):
            raise TypeError("an argument of a kernel takes more than 8 bytes")
        base = np.frombuffer(values, np.uint8).ctypes.data if values else 0
        addresses = np.arange(base, base + len(values), SLOT, dtype=np.uint64)
        check(
            "launching a kernel",
            self._cuda.cuLaunchKernel,
            function,
            *grid,
            *block,
            shared,
            stream,
            addresses.ctypes.data,
            0,
        )

    def begin_capture(self, stream: int) -> None:
        mode = self._cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        check("starting a capture", self._cuda.cuStreamBeginCapture, stream, mode)

    def end_capture(self, stream: int) -> int:
        cuda = self._cuda
        recorded = check("ending a capture", cuda.cuStreamEndCapture, stream)
        try:
            graph = int(check("making a graph executable", cuda.cuGraphInstantiate, recorded, 0))
        finally:
            with suppress(CudaError):
                check("destroying a capture", cuda.cuGraphDestroy, recorded)
        self._held.add("graph", graph, lambda: check("destroying a graph", cuda.cuGraphExecDestroy, graph))
        return graph

    def launch_graph(self, graph: int, stream: int) -> None:
        check("launching a graph", self._cuda.cuGraphLaunch, graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._held.release("graph", graph)


def _describe(cuda: Any, device: Any, index: int) -> tuple[Device, bool]:
    """The GPU, and whether it reaches page-locked host memory."""

    def attribute(name: str) -> int:
        member = getattr(cuda.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(check("asking the GPU", cuda.cuDeviceGetAttribute, member, device))

    name = bytes(check("asking the GPU", cuda.cuDeviceGetName, 256, device)).split(b"\0")[0].decode(errors="replace")
    capability = (attribute("COMPUTE_CAPABILITY_MAJOR"), attribute("COMPUTE_CAPABILITY_MINOR"))
    found = Device(index, name, capability, bool(attribute("INTEGRATED")))
    return found, bool(attribute("CAN_MAP_HOST_MEMORY"))


def _address(memory: np.ndarray) -> int:
    if not memory.flags.c_contiguous:
        raise ValueError("memory to copy must be contiguous")
    return memory.ctypes.data


def _let_go(cuda: Any, device: Any, context: Any, held: Holdings) -> None:
    with suppress(CudaError):
        check("switching to the GPU", cuda.cuCtxPushCurrent, context)
        for stream in held.handles("stream"):
            with suppress(CudaError):  # what is queued may still use what goes now
                check("waiting for a stream", cuda.cuStreamSynchronize, stream)
        held.release_all()
        check("switching from the GPU", cuda.cuCtxPopCurrent)
    with suppress(CudaError):
        check("closing the GPU", cuda.cuDevicePrimaryCtxRelease, device)
