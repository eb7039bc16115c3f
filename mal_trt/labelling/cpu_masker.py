"""The masker that works everywhere: crops and masks by the processor, the network on any backend."""

from __future__ import annotations

from collections.abc import Sequence

from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.masker import Batch, Mask, Picture, Place
from mal_trt.labelling.predictor import Predictor


class HostMasker:
    """Crops and masks by the processor; see `Masker`. scaled: pictures whose boxes are large are decoded smaller."""

    def __init__(self, predictor: Predictor, scaled: bool = False) -> None:
        self._predictor = predictor
        self._scaled = scaled

    def batch(self, boxes: int, size: SizeClass) -> Batch:
        """See `Masker.batch`; crops is [boxes,3,S,S]."""
        return Batch(boxes, size, self._predictor.batch(boxes, size))

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int], least: float) -> Picture:
        """See `Masker.load`."""
        return source.load(file_name, expected, self._predictor.reduction(least) if self._scaled else 1)

    def cut(self, picture: Picture, places: Sequence[Place]) -> None:
        """See `Masker.cut`."""
        for batch, slot, frame in places:
            self._predictor.crop(picture, frame, batch.crops[slot])
            batch.frames[slot] = frame

    def masks(self, batch: Batch, logits: bool = False) -> list[Mask | None]:
        """See `Masker.masks`."""
        frames = [frame for frame in batch.frames if frame]
        whole = len(frames) == len(batch.frames)
        crops = batch.crops if whole else batch.crops[[i for i, frame in enumerate(batch.frames) if frame]]
        batch.crops = None
        if not frames:
            return [None] * len(batch.frames)
        found = iter(self._predictor.run(crops, batch.size, frames))
        return [self._predictor.mask(next(found), frame, logits) if frame else None for frame in batch.frames]

    def close(self) -> None:
        """See `Masker.close`: nothing is kept."""
