"""What turns pictures and boxes into run lengths for `Labeler` and `label`: by a predictor alone, or all on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.rle import RLE


class Mask(NamedTuple):
    """rle: COCO's compressed RLE. quality: see `geometry.quality.soft_iou`. logits: what the mask was made of, float32
    [h,w] of the whole crop, where they were asked for."""

    rle: RLE
    quality: float
    logits: np.ndarray | None = None


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

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int], least: float) -> Picture:
        """Decode one picture, of the expected width and height; see `ImageSource.load`. least: shortest side of its
        boxes, pixels."""
        ...

    def cut(self, picture: Picture, places: Sequence[Place]) -> None:
        """Cut crops out of one picture; it may be let go afterwards."""
        ...

    def masks(self, batch: Batch, logits: bool = False) -> list[Mask | None]:
        """The mask of each slot, None where nothing was cut; the crops are let go. logits: keep those of each mask.

        InputError or RunError if the network fails, NanLogits if it gives NaN.
        """
        ...

    def close(self) -> None:
        """Free what was kept for the next batch."""
        ...
