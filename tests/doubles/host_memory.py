"""Memory of the double of CUDA: blocks on the host that notice where they are used wrongly."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

ALIGNMENT = 256
FRESH, FREED = 0xCD, 0xDD  # what memory holds that was never written, and that was given back
KEPT = 64  # freed blocks kept from reuse, so that a pointer to them is noticed

# Where AddressSanitizer is loaded, what lies around a block is out of bounds to instrumented kernels.
_mark: Any = getattr(ctypes.CDLL(None), "__asan_poison_memory_region", None)
_unmark: Any = getattr(ctypes.CDLL(None), "__asan_unpoison_memory_region", None)


class HostMemory:
    """The blocks that live, by address: the double's device memory and page-locked memory alike."""

    def __init__(self) -> None:
        self._blocks: dict[int, np.ndarray] = {}
        self._freed: deque[np.ndarray] = deque(maxlen=KEPT)

    def make(self, size: int) -> tuple[int, np.ndarray]:
        whole = np.full(size + ALIGNMENT, FRESH, np.uint8)
        block = whole[-whole.ctypes.data % ALIGNMENT :][:size]
        if _mark is not None:
            first, last, end = whole.ctypes.data, block.ctypes.data + size, whole.ctypes.data + whole.nbytes
            for start, stop in ((first, block.ctypes.data), (last, end)):
                _mark(ctypes.c_void_p(start), ctypes.c_size_t(stop - start))
            weakref.finalize(whole, _unmark, ctypes.c_void_p(first), ctypes.c_size_t(whole.nbytes))
        self._blocks[block.ctypes.data] = block
        return block.ctypes.data, block

    def drop(self, pointer: int) -> None:
        block = self._blocks.pop(pointer, None)
        assert block is not None, f"{pointer:#x} is no living allocation (freed twice, or never made)"
        block.fill(FREED)
        self._freed.append(block)

    def size(self, pointer: int) -> int:
        """Bytes of the block that starts at a pointer; 0 if none does."""
        block = self._blocks.get(pointer)
        return 0 if block is None else block.nbytes

    def array(self, pointer: int, dtype: Any, shape: int | Sequence[int]) -> np.ndarray:
        """A view of what a pointer points to, anywhere inside a living block; AssertionError if it leaves it."""
        pointer, dtype = int(pointer), np.dtype(dtype)
        extent = tuple(int(n) for n in ((shape,) if isinstance(shape, (int, np.integer)) else shape))
        size = int(np.prod(extent, dtype=np.int64)) * dtype.itemsize
        assert pointer % dtype.alignment == 0, f"{pointer:#x} is not aligned for {dtype}"
        for start, block in self._blocks.items():
            if start <= pointer < start + max(block.nbytes, 1):
                room = start + block.nbytes - pointer
                assert size <= room, f"{size} bytes at {pointer:#x} leave their allocation, {room} bytes are left"
                return block[pointer - start :][:size].view(dtype).reshape(extent)
        raise AssertionError(f"{pointer:#x} lies in no living allocation")
