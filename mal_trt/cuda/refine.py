"""Logits on the GPU: sharpened by colour as `geometry.refine` does it, averaged with mirrored ones, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.module import Kernels
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.refine import BINS


class Refiner:
    """For crops [3,size,size] of a dtype, "uint8" or "float32"; for one stream and one thread at a time."""

    def __init__(self, driver: Driver, size: int, dtype: Any = np.uint8) -> None:
        self._driver, self._size, self._dtype = driver, size, str(np.dtype(dtype))
        self._kernels = Kernels(driver, "refine.cu")
        self._launch = self._kernels.launch_1d
        self._boxes, self._flag = Staging(driver), Staging(driver)
        self._sums, self._pixels = DeviceBuffer(driver), DeviceBuffer(driver)
        self._flag_is_clear = False

    def refine(
        self, crops: int, logits: int, shape: tuple[int, int, int], frames: Sequence[Frame] | Frames, stream: int
    ) -> None:
        """Queue `refine_colour` of a batch, in place. crops: pointer to [N,3,S,S]; logits: to float32 [N,h,w].

        All work that was queued by an earlier `refine` must be done.
        """
        count, height, width = shape
        values, cells = count * height * width, 2 * BINS**3
        boxes = self._boxes.array(np.int32, count * 4)
        boxes[:] = Frames.of(frames).inner.ravel()
        # The sums of both weights in each cell, and their totals behind them.
        sums = self._sums.reserve(count * (cells + 2) * 8)
        totals = np.uint64(sums + count * cells * 8)
        probability = self._pixels.reserve(values * 8)
        pixels = np.uint64(probability), np.uint64(probability + values * 4)

        self._boxes.upload(boxes.nbytes, stream)
        self._driver.fill(sums, 0, count * (cells + 2) * 8, stream)
        sizes = np.int32(height), np.int32(width), np.int32(self._size)
        batch = np.uint64(self._boxes.pointer), np.int32(count), np.uint64(crops), np.uint64(logits)
        self._launch(f"refine_weigh_{self._dtype}", values, stream, *batch, *sizes, *pixels, np.uint64(sums))
        for axis in range(3):
            grids = np.uint64(sums), np.int32(2 * count), np.int32(axis)
            self._launch("refine_smooth", 2 * count * BINS**2, stream, *grids, np.uint64(0) if axis else totals)
        given = np.uint64(sums), totals, np.int32(count), np.int32(height * width)
        self._launch("refine_sharpen", values, stream, *pixels, *given, np.uint64(logits))

    def mirror(self, crops: int, into: int, count: int, stream: int) -> None:
        """Queue crops [N,3,S,S] turned left to right."""
        total = count * 3 * self._size**2
        rest = np.int64(total), np.int32(self._size), np.uint64(into)
        self._launch(f"mirror_{self._dtype}", total, stream, np.uint64(crops), *rest)

    def average(self, logits: int, mirrored: int, shape: tuple[int, int, int], stream: int) -> None:
        """Queue the mean of logits, float32 [N,h,w], in place, with those of the mirrored crops."""
        total = int(np.prod(shape))
        rest = np.uint64(mirrored), np.int64(total), np.int32(shape[-1])
        self._launch("logits_average", total, stream, np.uint64(logits), *rest)

    def check(self, logits: int, shape: tuple[int, int, int], stream: int) -> None:
        """Queue a search for NaN in logits, float32 [N,h,w]; `found_nan` answers for all since it was last called."""
        flag = self._flag.array(np.int32, 1)
        if not self._flag_is_clear:
            flag[:] = 0
            self._flag.upload(4, stream)
            self._flag_is_clear = True
        total = int(np.prod(shape))
        self._launch("logits_nan", total, stream, np.uint64(logits), np.int64(total), np.uint64(self._flag.pointer))
        self._flag.download(4, stream)

    def found_nan(self) -> bool:
        """Whether a NaN was found since the last call; the stream must have been waited for."""
        found = bool(self._flag.array(np.int32, 1)[0]) and self._flag_is_clear
        self._flag_is_clear = self._flag_is_clear and not found
        return found

    def close(self) -> None:
        """Free its memory; no queued work may use it."""
        for part in (self._kernels, self._boxes, self._flag, self._sums, self._pixels):
            part.close()
