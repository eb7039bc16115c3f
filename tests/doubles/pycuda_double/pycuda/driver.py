"""A test double of pycuda.driver: the part of its documented API that mal-trt uses, over libcuda by ctypes.

pycuda has no wheels, so tests cannot install it. As pycuda does, it takes objects, not integers, frees with their end,
and keeps a stack of contexts for each thread. What it accepts and says was compared with pycuda 2026.1.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from enum import IntEnum
from typing import Any

import numpy as np

_library = ctypes.CDLL("libcuda.so.1")
_thread = threading.local()


class Error(Exception):
    pass


class LogicError(Error):
    pass


class MemoryError(Error):
    pass


class device_attribute(IntEnum):
    INTEGRATED = 18
    CAN_MAP_HOST_MEMORY = 19


class event_flags(IntEnum):
    DEFAULT = 0
    DISABLE_TIMING = 2


class host_alloc_flags:
    DEVICEMAP = 2


def _call(name: str, *arguments: Any) -> None:
    code = getattr(_library, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _library.cuGetErrorString(code, ctypes.byref(text))
        kind = MemoryError if code == 2 else LogicError
        raise kind(f"{name.removesuffix('_v2')} failed: {(text.value or b'').decode()}")


def _stack() -> list[Context]:
    if not hasattr(_thread, "stack"):
        _thread.stack = []
    return _thread.stack


def _need_context() -> None:
    if not _stack():
        raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")


def init(flags: int = 0) -> None:
    _call("cuInit", flags)


class Device:
    def __init__(self, number: int) -> None:
        self._device = ctypes.c_int()
        _call("cuDeviceGet", ctypes.byref(self._device), number)

    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        _call("cuDeviceGetName", text, 256, self._device)
        return text.value.decode()

    def compute_capability(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        _call("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), self._device)
        return major.value, minor.value

    def get_attribute(self, attribute: device_attribute) -> int:
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), int(attribute), self._device)
        return value.value

    def retain_primary_context(self) -> Context:
        return Context(self._device)


class Context:
    """push() switches from the top of the thread's stack, so that CUDA's own stack is never deeper than one."""

    def __init__(self, device: ctypes.c_int) -> None:
        self._device, self._handle = device, ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._handle), device)

    def push(self) -> None:
        if _stack():
            _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        _call("cuCtxPushCurrent_v2", self._handle)
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        _stack().pop()
        if _stack():
            _call("cuCtxPushCurrent_v2", _stack()[-1]._handle)

    def detach(self) -> None:
        _call("cuCtxPushCurrent_v2", self._handle)  # and never pops it: so does pycuda
        _call("cuDevicePrimaryCtxRelease_v2", self._device)


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _need_context()
        self._handle = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(self._handle), flags)

    @property
    def handle(self) -> int:
        return self._handle.value or 0

    def synchronize(self) -> None:
        _call("cuStreamSynchronize", self._handle)

    def wait_for_event(self, event: Event) -> None:
        _call("cuStreamWaitEvent", self._handle, event._handle, 0)

    def __del__(self) -> None:
        _library.cuStreamDestroy_v2(self._handle)


class Event:
    def __init__(self, flags: int = 0) -> None:
        _need_context()
        self._handle = ctypes.c_void_p()
        _call("cuEventCreate", ctypes.byref(self._handle), flags)

    def record(self, stream: Stream | None = None) -> Event:
        _call("cuEventRecord", self._handle, _handle(stream))
        return self

    def synchronize(self) -> Event:
        _call("cuEventSynchronize", self._handle)
        return self

    def time_since(self, first: Event) -> float:
        value = ctypes.c_float()
        _call("cuEventElapsedTime", ctypes.byref(value), first._handle, self._handle)
        return value.value

    def __del__(self) -> None:
        _library.cuEventDestroy_v2(self._handle)


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self._valid, self._pointer = False, ctypes.c_uint64()
        _call("cuMemAlloc_v2", ctypes.byref(self._pointer), ctypes.c_size_t(size))
        self._valid = True

    def __int__(self) -> int:
        return self._pointer.value

    def free(self) -> None:
        if not self._valid:
            raise LogicError("device_allocation::free failed: invalid resource handle")
        self._valid = False
        _library.cuMemFree_v2(self._pointer)  # pycuda, too, only warns when this fails

    def __del__(self) -> None:
        if self._valid:
            self.free()


class PagelockedHostAllocation:
    def __init__(self, size: int, flags: int) -> None:
        self._valid, self._address = False, ctypes.c_void_p()
        _call("cuMemHostAlloc", ctypes.byref(self._address), ctypes.c_size_t(size), flags)
        self._valid = True
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (self._address.value, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        value = ctypes.c_uint64()
        _call("cuMemHostGetDevicePointer_v2", ctypes.byref(value), self._address, 0)
        return value.value

    def free(self) -> None:
        if not self._valid:
            raise LogicError("pagelocked_host_allocation::free failed: invalid resource handle")
        self._valid = False
        _library.cuMemFreeHost(self._address)

    def __del__(self) -> None:
        if self._valid:
            self.free()


def mem_alloc(size: int) -> DeviceAllocation:
    _need_context()
    return DeviceAllocation(size)


def mem_get_info() -> tuple[int, int]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    return free.value, total.value


def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    _need_context()
    if np.dtype(dtype) != np.uint8:
        raise NotImplementedError("the double has bytes only")
    return np.asarray(PagelockedHostAllocation(shape, mem_flags))


def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream | None = None) -> None:
    size = ctypes.c_size_t(src.nbytes)
    _call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(dest), ctypes.c_void_p(_buffer(src)), size, _handle(stream))


def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream | None = None) -> None:
    size = ctypes.c_size_t(dest.nbytes)
    _call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(_buffer(dest)), ctypes.c_uint64(src), size, _handle(stream))


def memset_d8_async(dest: int, data: int, size: int, stream: Stream | None = None) -> None:
    _call("cuMemsetD8Async", ctypes.c_uint64(dest), ctypes.c_ubyte(data), ctypes.c_size_t(size), _handle(stream))


def module_from_buffer(buffer: bytes) -> Module:
    _need_context()
    return Module(buffer)


class Module:
    def __init__(self, buffer: bytes) -> None:
        self._handle = ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(self._handle), buffer)

    def get_function(self, name: str) -> Function:
        return Function(self, name)

    def __del__(self) -> None:
        if self._handle:
            _library.cuModuleUnload(self._handle)


class Function:
    def __init__(self, module: Module, name: str) -> None:
        self._module, self._handle = module, ctypes.c_void_p()
        _call("cuModuleGetFunction", ctypes.byref(self._handle), module._handle, name.encode())

    def __call__(
        self,
        *arguments: np.number,
        block: tuple[int, ...],
        grid: tuple[int, ...] = (1, 1),
        stream: Stream | None = None,
        shared: int = 0,
    ) -> None:
        if not all(isinstance(argument, np.number) for argument in arguments):
            raise TypeError("invalid type on parameter")
        packed = struct.pack("".join(argument.dtype.char for argument in arguments), *arguments)
        size = ctypes.c_size_t(len(packed))
        extra = (ctypes.c_void_p * 5)(
            1, ctypes.cast(packed, ctypes.c_void_p), 2, ctypes.cast(ctypes.byref(size), ctypes.c_void_p), 0
        )
        sizes = (*grid, 1)[:3] + (*block, 1, 1)[:3]
        _call("cuLaunchKernel", self._handle, *sizes, shared, _handle(stream), None, extra)


def _handle(stream: Stream | None) -> ctypes.c_void_p | None:
    if not isinstance(stream, (Stream, type(None))):
        raise TypeError("not a Stream")
    return None if stream is None else stream._handle


def _buffer(memory: np.ndarray) -> int:
    if not memory.flags.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not contiguous")
    return memory.ctypes.data
