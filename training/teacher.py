"""One finished model as the teacher of a smaller one: its soft masks of the training boxes. The mean of several
networks in training is `ensemble`; how the masks are kept, `mask_cache`.

As in knowledge distillation (Hinton et al., arXiv 1503.02531) the student sees what the teacher made of a box, and not
what somebody drew; boxes on which the teacher's own views differ count less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mal_trt.artifacts.models import resolve_model
from mal_trt.backends.choice import reference_backend
from mal_trt.base.digest import file_sha256
from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame, make_frame
from mal_trt.labelling.predictor import DEFAULT_BATCH, Predictor, batch_size
from mal_trt.training.over_box import SIDE, agreement, extent, over_box, place, recentred
from mal_trt.training.pictures import TrainingBoxes
from mal_trt.training.prior import Prior

SHARES = (2 / 3, 1.0, 5 / 3)  # the margins of the three views, as shares of the teacher's own


class Teacher:
    """A model that draws soft masks: any that `Predictor` takes. Close it after use.

    weights: "student", "teacher" or "mixed" where it carries both. Its margin, thresholds and refinement are its own;
    every view is averaged with its mirror.
    """

    def __init__(self, model: str | Path, device: str = "auto", weights: str | None = None) -> None:
        self.model = str(model)
        given = Path(model) if Path(model).is_file() else resolve_model(model)
        # The same masks wherever they are drawn: they are kept, and made use of on other machines.
        backend = reference_backend(given)
        threads = torch.get_num_threads()
        self._predictor = Predictor(model, device, flip=True, weights=weights, threads=threads, backend=backend)
        contract = self._predictor.contract
        self.margins = tuple(round(contract.margin_rate * share, 4) for share in SHARES)
        self.facts: dict[str, object] = {
            "teacher": file_sha256(given),
            "weights": weights or "",
            "thresholds": list(self._predictor.thresholds),
            "margins": list(self.margins),
            "refine": self._predictor.refine,
            "side": SIDE,
        }

    def draw(self, boxes: TrainingBoxes, rows: Sequence[int]) -> Iterator[tuple[list[int], list[Prior | None]]]:
        """The soft masks of some rows, batch by batch, each with its rows; pictures are decoded once."""
        waiting: list[_Views] = []
        full = batch_size(None, self._predictor.most)
        for number, members in _by_picture(boxes, rows):
            try:
                picture = boxes.pictures[number].read()
            except ImageProblem:
                yield members, [None] * len(members)
                continue
            for row in members:
                waiting.append(self._views(picture, boxes.boxes[row].tolist(), row))
                if len(waiting) * len(SHARES) >= max(full, DEFAULT_BATCH):
                    yield self._drawn(waiting)
                    waiting = []
        if waiting:
            yield self._drawn(waiting)

    def _views(self, picture: np.ndarray, box: list[float], row: int) -> _Views:
        height, width = picture.shape[:2]
        sized = self._predictor.frame(box, width, height)
        frames = [make_frame(box, width, height, sized.size, margin) for margin in self.margins]
        crops = self._predictor.batch(len(frames), sized.size_class)
        for crop, frame in zip(crops, frames, strict=True):
            self._predictor.crop(picture, frame, crop)
        return _Views(row, frames, crops)

    def _drawn(self, views: Sequence[_Views]) -> tuple[list[int], list[Prior | None]]:
        done: list[tuple[int, Prior | None]] = []
        most = self._predictor.most
        for size in SizeClass:
            some = [v for v in views if v.frames[0].size_class == size]
            frames = [frame for v in some for frame in v.frames]
            if not some:
                continue
            crops = np.concatenate([v.crops for v in some])
            step = len(crops) if most is None else most
            logits = np.concatenate(
                [
                    self._predictor.run(crops[at : at + step], size, frames[at : at + step])
                    for at in range(0, len(crops), step)
                ]
            )
            places = torch.tensor([place(frame.box, frame.extended) for frame in frames])
            maps = over_box(torch.from_numpy(logits)[:, None], places).view(len(some), len(SHARES), SIDE, SIDE).numpy()
            threshold = self._predictor.thresholds[size]
            done += [(v.row, _soft(each, threshold)) for v, each in zip(some, maps, strict=True)]
        return [row for row, _ in done], [mask for _, mask in done]

    def close(self) -> None:
        """Free the model."""
        self._predictor.close()


@dataclass(frozen=True)
class _Views:
    """A box's row, and its crops [3,3,S,S] with where they lie."""

    row: int
    frames: list[Frame]
    crops: np.ndarray


def _soft(logits: np.ndarray, threshold: float) -> Prior:
    """The mask of a box from its views' logits [V,64,64], the threshold at one half. Trust: how much the views agree,
    times the share of the box that the mask reaches; 0 for an empty mask."""
    mean = _probability(logits.mean(0))
    whole = mean > threshold
    trust = agreement(_probability(logits) > threshold, whole) * extent(whole)
    return Prior(np.round(recentred(mean, threshold) * 255).astype(np.uint8), trust)


def _probability(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        result: np.ndarray = 1 / (1 + np.exp(-logits))
    return result


def _by_picture(boxes: TrainingBoxes, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Rows, those of a picture together: (the picture's number, its rows)."""
    of_picture: dict[int, list[int]] = {}
    for row in rows:
        of_picture.setdefault(int(boxes.picture[row]), []).append(row)
    yield from of_picture.items()


def box_keys(boxes: TrainingBoxes) -> list[bytes]:
    """What tells a box from all others, whatever file it stands in: its picture's name and size and its sides."""
    keys = []
    for box, number in zip(boxes.boxes, boxes.picture, strict=True):
        picture = boxes.pictures[number]
        text = f"{picture.name}\0{picture.expected}\0{box.tolist()}"
        keys.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return keys
