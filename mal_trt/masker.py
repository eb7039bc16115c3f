"""From pixels and boxes to run lengths, a batch at a time: on the processor here, on the GPU in `mal_trt.cuda`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mal_trt.backends import DeviceBackend
from mal_trt.boxes import SizeClass
from mal_trt.crops import Frame
from mal_trt.errors import InputError
from mal_trt.images import ImageSource
from mal_trt.masks import RLE
from mal_trt.predictor import Predictor

CROPS = ("auto", "cpu", "gpu")
DECODE = ("cpu", "gpu")


class Batch:
    """Boxes of one size class on their way to their masks.

    frames: one for each slot, None until a crop was cut into it. crops: where the crops are, the masker's own.
    """

    def __init__(self, boxes: int, size: SizeClass, crops: Any) -> None:
        self.size = size
        self.crops = crops
        self.frames: list[Frame | None] = [None] * boxes


Place = tuple[Batch, int, Frame]  # a batch, a slot of it, and the crop that goes there
Picture = Any  # uint8 [H,W,3] RGB: a NumPy array, or pixels on the GPU with __cuda_array_interface__


class Masker(Protocol):
    """What cuts crops, runs the network and makes masks; any number of threads may use it at once."""

    def batch(self, boxes: int, size: SizeClass) -> Batch:
        """Room for the crops of so many boxes."""
        ...

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int]) -> Picture:
        """Decode one picture, of the expected width and height; see `ImageSource.load`."""
        ...

    def cut(self, picture: Picture, places: Sequence[Place]) -> None:
        """Cut crops out of one picture; it may be let go afterwards."""
        ...

    def masks(self, batch: Batch) -> list[RLE | None]:
        """COCO's compressed RLE for each slot, None where nothing was cut; the crops are let go.

        InputError or RunError if the network fails, NanLogits if it gives NaN.
        """
        ...

    def close(self) -> None:
        """Free what was kept for the next batch."""
        ...


def open_masker(predictor: Predictor, crops: str = "auto", decode: str = "cpu") -> Masker:
    """crops: where crops and masks are made, "cpu", "gpu", or "auto": beside the network. decode: where pictures are
    decoded, "cpu" or "gpu" (JPEG, with nvImageCodec). InputError if they cannot be."""
    for name, value, choices in (("crops", crops, CROPS), ("decode", decode, DECODE)):
        if value not in choices:
            raise InputError(f"{name} {value}: expected one of {', '.join(choices)}")
    on_device = isinstance(predictor.backend, DeviceBackend)
    for name, value in (("crops", crops), ("decode", decode)):
        if value == "gpu" and not on_device:
            raise InputError(f"{name} gpu: the model runs on {predictor.provider}, not on a GPU; use --{name} cpu")
        if value == "gpu" and predictor.tight:
            raise InputError(f"{name} gpu: masks of --threshold tight are made on the CPU; use --{name} cpu")
    if decode == "gpu" and crops == "cpu":
        raise InputError("decode gpu: its pictures stay on the GPU; leave out --crops cpu")
    if crops == "cpu" or predictor.tight or not on_device:
        return HostMasker(predictor)
    from mal_trt.cuda.masker import DeviceMasker

    return DeviceMasker(predictor, decode)


class HostMasker:
    """Crops and masks by the processor; see `Masker`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def batch(self, boxes: int, size: SizeClass) -> Batch:
        """See `Masker.batch`; crops is [boxes,3,S,S]."""
        return Batch(boxes, size, self._predictor.batch(boxes))

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int]) -> Picture:
        """See `Masker.load`."""
        return source.load(file_name, expected)

    def cut(self, picture: Picture, places: Sequence[Place]) -> None:
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
