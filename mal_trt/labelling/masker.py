"""What turns pictures and boxes into run lengths for `Labeler` and `label`: by a predictor alone, or all on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mal_trt.cuda.crop import DevicePicture
from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.rle import RLE


class Mask(NamedTuple):
    """rle: COCO's compressed RLE. area: its pixels. quality: see `geometry.quality.soft_iou`. logits: what the mask was
    made of, float32 [h,w] of the whole crop, where they were asked for."""

    rle: RLE
    area: int
    quality: float
    logits: np.ndarray | None = None


class Batch:
    """Boxes of one size class on their way to their masks.

    frames: of each slot. cut: of which slots there will be a crop, bool [n]: all, until somebody says otherwise. crops:
    where the crops are, the masker's own.
    """

    def __init__(self, frames: Frames, size: SizeClass, crops: Any) -> None:
        self.frames, self.size, self.crops = frames, size, crops
        self.cut = np.ones(len(frames), bool)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the crops of n boxes come from and go to.

    picture: from which of some pictures each is cut, int [n]. batch, slot: into which of `batches` each goes, and where
    in it, int [n].
    """

    frames: Frames
    picture: np.ndarray
    batches: Sequence[Batch]
    batch: np.ndarray
    slot: np.ndarray

    @staticmethod
    def filling(batch: Batch, picture: Sequence[int] | None = None) -> Places:
        """All slots of one batch, of the first picture unless `picture` tells."""
        none = np.zeros(len(batch.frames), np.int64)
        from_ = none if picture is None else np.array(picture, np.int64)
        return Places(batch.frames, from_, [batch], none, np.arange(len(none)))

    def part(self, at: np.ndarray) -> Places:
        """Some of the boxes, bool [n]."""
        return Places(self.frames.part(at), self.picture[at], self.batches, self.batch[at], self.slot[at])


Picture = np.ndarray | DevicePicture  # uint8 [H,W,3] RGB


class Masker(Protocol):
    """What cuts crops, runs the network and makes masks; any number of threads may use it at once.

    boxes_at_once: least and most that it is best given to cut. pixels_at_once: up to how many pixels of pictures; each
    may be larger by itself.
    """

    boxes_at_once: tuple[int, int]
    pixels_at_once: int

    def batch(self, frames: Frames, size: SizeClass) -> Batch:
        """Room for the crops of some boxes, whose frames need not be there yet."""
        ...

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int], least: float) -> Picture:
        """Decode one picture, of the expected width and height; see `ImageSource.load`. least: shortest side of its
        boxes, pixels."""
        ...

    def cut(self, pictures: Sequence[Picture], places: Places) -> None:
        """Cut crops out of some pictures, which may be let go afterwards."""
        ...

    def masks(self, batch: Batch, logits: bool = False) -> list[Mask | None]:
        """The mask of each slot, None where nothing was cut; the crops are let go. logits: keep those of each mask.

        InputError or RunError if the network fails, NanLogits if it gives NaN.
        """
        ...

    def close(self) -> None:
        """Free what was kept for the next batch."""
        ...


def draw(
    masker: Masker,
    pictures: Sequence[Picture],
    frames: Frames,
    size: SizeClass,
    picture: Sequence[int] | None = None,
    logits: bool = False,
) -> list[Mask]:
    """The masks of one batch of boxes, all of whose pictures are there. picture: see `Places.filling`; logits: see
    `Masker.masks`."""
    batch = masker.batch(frames, size)
    try:
        masker.cut(pictures, Places.filling(batch, picture))
    except BaseException:
        batch.cut[:] = False
        masker.masks(batch)  # which lets the crops go
        raise
    return [mask for mask in masker.masks(batch, logits) if mask is not None]
