"""Memory that only grows, so that after the largest size was seen nothing waits for an allocation."""

from __future__ import annotations

import numpy as np

from mal_trt.cuda.driver import Driver


class DeviceBuffer:
    """Memory of the GPU. pointer: its address, which changes when it grows; its content is lost then. size: bytes."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.pointer = 0
        self.size = 0

    def reserve(self, size: int) -> int:
        """Address of at least `size` bytes. No queued work may use the old memory when it grows."""
        if size > self.size:
            self.close()
            self.pointer = self._driver.allocate(size)
            self.size = size
        return self.pointer

    def close(self) -> None:
        """Free it; it can be reserved again."""
        pointer, self.pointer, self.size = self.pointer, 0, 0
        if pointer:
            self._driver.free(pointer)


class PinnedBuffer:
    """Page-locked host memory for data that comes down from the GPU."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory: np.ndarray | None = None

    def reserve(self, size: int) -> np.ndarray:
        """uint8 of at least `size` bytes. No queued work may use the old memory when it grows."""
        if self._memory is None or self._memory.nbytes < size:
            self.close()
            self._memory, _ = self._driver.allocate_pinned(size)
        return self._memory

    def close(self) -> None:
        """Free it; it can be reserved again."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self._driver.free_pinned(memory)


class Staging:
    """Page-locked host memory with its twin on the GPU: the way of small data up and down.

    Where the GPU shares the processor's memory (Jetson) both are one, and nothing is copied.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._device = DeviceBuffer(driver)
        self._memory: np.ndarray | None = None
        self._mapped = 0

    def reserve(self, size: int) -> np.ndarray:
        """The host's side, uint8 of at least `size` bytes. No queued work may use the old memory when it grows."""
        if self._memory is None or self._memory.nbytes < size:
            self.close()
            memory, mapped = self._driver.allocate_pinned(size)
            self._memory, self._mapped = memory, mapped if self._driver.device.integrated else 0
            try:
                if not self._mapped:
                    self._device.reserve(size)
            except BaseException:  # otherwise the next call would find a host's side without its twin
                self.close()
                raise
        return self._memory

    def array(self, dtype: np.dtype | type, count: int) -> np.ndarray:
        """`reserve` for `count` items of a type, as an array of them."""
        size = count * np.dtype(dtype).itemsize
        return self.reserve(size)[:size].view(dtype)

    @property
    def pointer(self) -> int:
        """Address of the GPU's side."""
        return self._mapped or self._device.pointer

    def upload(self, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes to the GPU."""
        if not self._mapped and self._memory is not None and size:
            self._driver.copy_to_device(self._device.pointer, self._memory[:size], stream)

    def download(self, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes from the GPU."""
        if not self._mapped and self._memory is not None and size:
            self._driver.copy_to_host(self._memory[:size], self._device.pointer, stream)

    def close(self) -> None:
        """Free both sides; they can be reserved again."""
        memory, self._memory, self._mapped = self._memory, None, 0
        try:
            if memory is not None:
                self._driver.free_pinned(memory)
        finally:
            self._device.close()
