"""From pixels and boxes to run lengths, a batch at a time: on the processor here, on the GPU in `mal_trt.cuda`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mal_trt.backends import DeviceBackend
from mal_trt.boxes import SizeClass
from mal_trt.crops import Frame
from mal_trt.errors import InputError
from mal_trt.masks import RLE
from mal_trt.predictor import Predictor

CROPS = ("auto", "cpu", "gpu")


class Batch:
    """Boxes of one size class on their way to their masks.

    frames: one for each slot, None until a crop was cut into it. crops: where the crops are, the masker's own.
    """

    def __init__(self, boxes: int, size: SizeClass, crops: Any) -> None:
        self.size = size
        self.crops = crops
        self.frames: list[Frame | None] = [None] * boxes


Place = tuple[Batch, int, Frame]  # a batch, a slot of it, and the crop that goes there


class Masker(Protocol):
    """What cuts crops, runs the network and makes masks; any number of threads may use it at once."""

    def batch(self, boxes: int, size: SizeClass) -> Batch:
        """Room for the crops of so many boxes."""
        ...

    def cut(self, picture: np.ndarray, places: Sequence[Place]) -> None:
        """Cut crops out of one picture, uint8 [H,W,3]; it may be let go afterwards."""
        ...

    def masks(self, batch: Batch) -> list[RLE | None]:
        """COCO's compressed RLE for each slot, None where nothing was cut; the crops are let go.

        InputError or RunError if the network fails, NanLogits if it gives NaN.
        """
        ...

    def close(self) -> None:
        """Free what was kept for the next batch."""
        ...


def open_masker(predictor: Predictor, crops: str = "auto") -> Masker:
    """crops: where crops and masks are made, "cpu", "gpu", or "auto": beside the network. InputError if they cannot."""
    if crops not in CROPS:
        raise InputError(f"crops {crops}: expected one of {', '.join(CROPS)}")
    on_device = isinstance(predictor.backend, DeviceBackend)
    if crops == "gpu" and not on_device:
        raise InputError(
            f"crops gpu: {predictor.provider} does not run on a GPU that mal-trt can reach; use --crops cpu"
        )
    if crops == "gpu" and predictor.tight:
        raise InputError("crops gpu: --threshold tight is found on the CPU; use --crops cpu, or leave it out")
    if crops == "cpu" or predictor.tight or not on_device:
        return HostMasker(predictor)
    from mal_trt.cuda.masker import DeviceMasker

    return DeviceMasker(predictor)


class HostMasker:
    """Crops and masks by the processor; see `Masker`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def batch(self, boxes: int, size: SizeClass) -> Batch:
        """See `Masker.batch`; crops is [boxes,3,S,S]."""
        return Batch(boxes, size, self._predictor.batch(boxes))

    def cut(self, picture: np.ndarray, places: Sequence[Place]) -> None:
        """See `Masker.cut`."""
        for batch, slot, frame in places:
            self._predictor.crop(picture, frame, batch.crops[slot])
            batch.frames[slot] = frame

    def masks(self, batch: Batch) -> list[RLE | None]:
        """See `Masker.masks`."""
        frames = [frame for frame in batch.frames if frame]
        whole = len(frames) == len(batch.frames)
        crops = batch.crops if whole else batch.crops[[i for i, frame in enumerate(batch.frames) if frame]]
        batch.crops = None
        if not frames:
            return [None] * len(batch.frames)
        logits = iter(self._predictor.run(crops, batch.size, frames))
        return [self._predictor.rle(next(logits), frame) if frame else None for frame in batch.frames]

    def close(self) -> None:
        """See `Masker.close`: nothing is kept."""
