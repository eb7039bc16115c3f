"""What tests of backends on a GPU share: crops, and a stream with buffers of its own, as a labelling lane has them."""

from __future__ import annotations

import numpy as np

from mal_trt.backends import DeviceBackend
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.geometry.boxes import SizeClass


def crops(count: int, seed: int = 0, dtype: str = "uint8", side: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side)).astype(dtype)


class Lane:
    """A stream with buffers of its own, as a labelling lane has them."""

    def __init__(self, backend: DeviceBackend, size: SizeClass = SizeClass.LARGE) -> None:
        self.backend, self.driver, self.size = backend, backend.driver, size
        self.image, self.logits = DeviceBuffer(self.driver), DeviceBuffer(self.driver)
        with self.driver.current():
            self.stream = self.driver.create_stream()
        self.side = backend.logits_side(size)

    def queue(self, image: np.ndarray, weights: str | None = None) -> None:
        room = max(8, self.backend.least(self.size))
        with self.driver.current():
            self.image.reserve(room * image[0].nbytes)
            self.logits.reserve(room * self.side**2 * 4)
            self.driver.copy_to_device(self.image.pointer, image, self.stream)
            self.backend.enqueue(self.image.pointer, self.logits.pointer, len(image), self.size, self.stream, weights)

    def result(self, count: int) -> np.ndarray:
        found = np.empty((count, 1, self.side, self.side), np.float32)
        with self.driver.current():
            self.driver.copy_to_host(found, self.logits.pointer, self.stream)
            self.driver.synchronize(self.stream)
        return found

    def close(self) -> None:
        with self.driver.current():
            self.image.close()
            self.logits.close()
            self.driver.destroy_stream(self.stream)
