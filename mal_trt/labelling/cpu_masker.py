"""The masker that works everywhere: crops and masks by the processor, the network on any backend."""

from __future__ import annotations

from collections.abc import Sequence

from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.labelling.masker import Batch, Mask, Picture, Places
from mal_trt.labelling.predictor import Predictor


class CpuMasker:
    """Crops and masks by the processor; see `Masker`. scaled: pictures whose boxes are large are decoded smaller."""

    boxes_at_once, pixels_at_once = (8, 8), 0

    def __init__(self, predictor: Predictor, scaled: bool = False) -> None:
        self._predictor = predictor
        self._scaled = scaled

    def batch(self, frames: Frames, size: SizeClass) -> Batch:
        """See `Masker.batch`; crops is [boxes,3,S,S]."""
        return Batch(frames, size, self._predictor.batch(len(frames), size))

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int], least: float) -> Picture:
        """See `Masker.load`."""
        return source.load(file_name, expected, self._predictor.reduction(least) if self._scaled else 1)

    def cut(self, pictures: Sequence[Picture], places: Places) -> None:
        """See `Masker.cut`."""
        from_to = zip(places.picture.tolist(), places.batch.tolist(), places.slot.tolist(), strict=True)
        for frame, (picture, batch, slot) in zip(places.frames, from_to, strict=True):
            self._predictor.crop(pictures[picture], frame, places.batches[batch].crops[slot])

    def masks(self, batch: Batch, logits: bool = False) -> list[Mask | None]:
        """See `Masker.masks`."""
        whole = bool(batch.cut.all())
        crops = batch.crops if whole else batch.crops[batch.cut]
        batch.crops = None
        if not batch.cut.any():
            return [None] * len(batch.cut)
        frames = batch.frames.part(batch.cut)
        found = iter(self._predictor.masks(self._predictor.run(crops, batch.size, frames), frames, logits))
        return [next(found) if cut else None for cut in batch.cut.tolist()]

    def close(self) -> None:
        """See `Masker.close`: nothing is kept."""
