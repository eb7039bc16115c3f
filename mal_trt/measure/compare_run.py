"""Every model run on every box of a comparison. What is made of the answers is `agreement`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mal_trt.base.errors import NanLogits
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.predictor import Predictor
from mal_trt.measure.agreement import Agreement, Answer, answers
from mal_trt.measure.compare_boxes import ComparedBoxes, PlannedBox

BATCHES_AHEAD = 2  # crops waiting for the networks, in batches' worth of boxes


@dataclass(frozen=True)
class _Crop:
    """A box with its crop [3,S,S] for every kind of crop the models take."""

    box: PlannedBox
    pixels: list[np.ndarray]
    frames: list[Frame]


@dataclass(frozen=True)
class ComparedBox:
    """One box with the mask of each model, None where its logits are not finite, and the drawn one if there is one."""

    box: PlannedBox
    masks: tuple[RLE | None, ...]
    drawn: RLE | None


class Comparison:
    """Runs every model on every box. boxes: compared so far; drawn: of them with a drawn mask.

    seen: called with each box that was compared.
    """

    def __init__(
        self, predictors: Sequence[Predictor], batch: int, seen: Callable[[ComparedBox], None] | None = None
    ) -> None:
        self._seen = seen
        self.agreements = [Agreement() for _ in predictors[1:]]
        self.boxes = self.drawn = 0
        self.skipped: Counter[str] = Counter()
        self._predictors = predictors
        self._batch = batch
        kinds = [
            (p.contract.sizes or p.contract.input_size, p.contract.margin_rate, p.contract.input_dtype)
            for p in predictors
        ]
        self._cutters = [predictors[kinds.index(kind)] for kind in dict.fromkeys(kinds)]
        self._kind = [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]  # of each model
        self._picture: tuple[str, np.ndarray | ImageProblem] | None = None  # the cutting thread's

    def all(self, plan: ComparedBoxes, source: ImageSource, done: Callable[[int], None]) -> None:
        """Compare on all boxes of a plan; pictures are decoded and cut in a thread beside the networks."""
        filling: dict[SizeClass, list[_Crop]] = {size: [] for size in SizeClass}
        ahead: deque[tuple[list[PlannedBox], Future[list[_Crop] | ImageProblem]]] = deque()

        def take() -> None:
            piece, future = ahead.popleft()
            crops = future.result()
            if isinstance(crops, ImageProblem):
                self.skipped[crops.reason] += len(piece)
                done(len(piece))
                return
            for crop in crops:
                group = filling[crop.frames[0].size_class]
                group.append(crop)
                if len(group) == self._batch:
                    self._compare(group, plan.drawn)
                    done(len(group))
                    group.clear()

        with ThreadPoolExecutor(1, "mal-trt") as pool:
            try:
                for piece in plan.pieces():
                    ahead.append((piece, pool.submit(self._cut, source, piece)))
                    while sum(len(boxes) for boxes, _ in ahead) > BATCHES_AHEAD * self._batch:
                        take()
                while ahead:
                    take()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for group in filling.values():
            if group:
                self._compare(group, plan.drawn)
                done(len(group))

    def _cut(self, source: ImageSource, piece: list[PlannedBox]) -> list[_Crop] | ImageProblem:
        first = piece[0]
        if self._picture is None or self._picture[0] != first.file_name:
            try:
                self._picture = first.file_name, source.load(first.file_name, (first.width, first.height))
            except ImageProblem as problem:
                self._picture = first.file_name, problem
        picture = self._picture[1]
        return picture if isinstance(picture, ImageProblem) else [self._crop(picture, box) for box in piece]

    def _crop(self, picture: np.ndarray, box: PlannedBox) -> _Crop:
        crop = _Crop(box, [], [])
        for predictor in self._cutters:
            frame = predictor.frame(box.xyxy, box.width, box.height)
            pixels = predictor.batch(1, frame.size_class)[0]
            predictor.crop(picture, frame, pixels)
            crop.pixels.append(pixels)
            crop.frames.append(frame)
        return crop

    def _compare(self, crops: list[_Crop], drawn: bool) -> None:
        truths = [crop.box.truth() for crop in crops] if drawn else None
        ids = [crop.box.id for crop in crops]
        given: list[list[Answer]] = []
        for predictor, kind in zip(self._predictors, self._kind, strict=True):
            frames = [crop.frames[kind] for crop in crops]
            pixels = np.stack([crop.pixels[kind] for crop in crops])
            logits = _logits(predictor, pixels, frames[0].size_class)
            refined = [
                predictor.refined(*one) if np.isfinite(one[0]).all() else one[0]
                for one in zip(logits, pixels, frames, strict=True)
            ]
            given.append(answers(logits, frames, ids, predictor.thresholds, truths, refined))
        for agreement, others in zip(self.agreements, given[1:], strict=True):
            for reference, other in zip(given[0], others, strict=True):
                agreement.add(reference, other)
        if self._seen is not None:
            drawn_masks = truths or [None] * len(crops)
            for crop, truth, found in zip(crops, drawn_masks, zip(*given, strict=True), strict=True):
                masks = tuple(answer.rle for answer in found)
                self._seen(ComparedBox(crop.box, masks, None if truth is None else truth.rle))
        self.boxes += len(crops)
        self.drawn += sum(truth is not None for truth in truths or [])


def _logits(predictor: Predictor, crops: np.ndarray, size: SizeClass) -> list[np.ndarray]:
    """Logits of each crop of a batch, float32 [h,w]. Where some are NaN, each crop runs by itself, to find those."""
    try:
        return list(predictor.run(crops, size))
    except NanLogits:
        if len(crops) == 1:
            return [np.full((1, 1), np.nan, np.float32)]
        return [logits for crop in crops for logits in _logits(predictor, crop[None], size)]
