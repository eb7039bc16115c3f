"""How sure the network is of its masks, on the GPU: `mal_trt.geometry.quality.soft_iou` of a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.module import Kernels
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.quality import DIGITS, inner_cells

# `QualityBox` in quality.cu.
QUALITY_BOX = np.dtype([("cells", np.int32, 4), ("threshold", np.float64)], align=True)


class QualityScorer:
    """Scores one batch at a time; for one stream and one thread at a time."""

    def __init__(self, driver: Driver) -> None:
        self._kernels = Kernels(driver, "quality.cu")
        self._boxes, self._quality = Staging(driver), Staging(driver)
        self._sums = DeviceBuffer(driver)
        self._count = 0

    def queue(
        self,
        logits: int,
        shape: tuple[int, int, int],
        frames: Sequence[Frame] | Frames,
        thresholds: float | Sequence[float],
        stream: int,
    ) -> None:
        """Queue `soft_iou` of a batch. logits: pointer to float32 [N,h,w]. thresholds: of all masks, or of each.

        All work that was queued by an earlier `queue` must be done.
        """
        count, height, width = shape
        frames = Frames.of(frames)
        boxes = self._boxes.array(QUALITY_BOX, count)
        boxes["cells"] = inner_cells(frames.inner, frames.side, height, width)
        boxes["threshold"] = thresholds
        sums = np.uint64(self._sums.reserve(count * height * 16))
        self._quality.reserve(count * 8)

        self._boxes.upload(boxes.nbytes, stream)
        own = np.uint64(self._boxes.pointer), np.int32(count), np.uint64(logits)
        launch = self._kernels.launch_1d
        launch("quality_rows", count * height, stream, *own, np.int32(height), np.int32(width), sums)
        into = np.uint64(self._quality.pointer)
        launch("quality_shares", count, stream, np.int32(count), np.int32(height), sums, into)
        self._quality.download(count * 8, stream)
        self._count = count

    def qualities(self) -> list[float]:
        """Qualities of the batch that was queued last; its stream must have been waited for."""
        found = self._quality.array(np.float64, self._count)
        return [round(quality, DIGITS) for quality in found.tolist()]

    def close(self) -> None:
        """Free its memory; no queued work may use it."""
        for part in (self._kernels, self._boxes, self._quality, self._sums):
            part.close()
