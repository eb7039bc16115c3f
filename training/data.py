"""Training samples: sample number i is the same crop in every run, so a resumed run sees what it would have seen."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from mal_trt.base.errors import RunError
from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.boxes import extended_box, inclusive_pixels
from mal_trt.geometry.crops import inner_box, read_crop
from mal_trt.geometry.local_mask import bounds
from mal_trt.training.augment import (
    harder,
    jittered,
    random_margins,
    student_colours,
    wrapped_box_mask,
    wrapped_mask,
)
from mal_trt.training.cutouts import Cutouts
from mal_trt.training.figures import draw_figure
from mal_trt.training.one_size import drawn_area, size_classes
from mal_trt.training.paste import pasted, scene
from mal_trt.training.pictures import Order, TrainingBoxes, TrainingPicture, epoch_order
from mal_trt.training.prior import Prior, place_prior, place_prior_off

# Boxes in a row whose pictures may turn out damaged before the run gives up.
SUBSTITUTES = 50


class Sample(TypedDict):
    """student, teacher: uint8 [S,S,3] RGB crops, the student's with colour changes; mask: uint8 [S,S] of 0/1,
    the box (or the figure itself where `exact`); prior: uint8 [S,S], 255 = surely object, where `has_prior`; trust:
    float32, how far the prior may be trusted;
    area: float32, original square pixels; row: annotation, -1 if drawn; damaged: the annotation this sample stands
    in for because its picture cannot be read, else -1.
    """

    student: torch.Tensor
    teacher: torch.Tensor
    mask: torch.Tensor
    prior: torch.Tensor
    has_prior: torch.Tensor
    trust: torch.Tensor
    area: torch.Tensor
    exact: torch.Tensor
    row: int
    damaged: int


@dataclass(frozen=True)
class SampleRules:
    """crop_size: pixels. margin_rate: range of the random margins. figures: share of drawn figures. jitter, strong,
    sizes, paste: see TrainConfig; sizes need an `order.one_size`, the boxes of a batch."""

    crop_size: int
    seed: int
    margin_rate: tuple[float, float] = (0.0, 1.2)
    order: Order = field(default_factory=Order)
    figures: float = 0.0
    jitter: float = 0.0
    strong: bool = False
    sizes: tuple[int, int, int] | None = None
    paste: float = 0.0

    def side(self, size: int) -> int:
        """Side of the crops of boxes of one size class, pixels."""
        return self.sizes[size] if self.sizes else self.crop_size


class Samples(Dataset[Sample]):
    """Samples first..last of the endless sequence that a data set, its rules and its seed define."""

    def __init__(
        self,
        boxes: TrainingBoxes,
        rules: SampleRules,
        first: int,
        last: int,
        priors: Mapping[int, Prior] | None = None,
        preload: bool = False,
        cutouts: Cutouts | None = None,
    ) -> None:
        self.priors, self.cutouts = priors or {}, cutouts or Cutouts()
        self.boxes, self.rules, self.first, self.last = boxes, rules, first, last
        self.epoch_length = len(epoch_order(boxes, rules.order, rules.seed, 0))
        self._epoch, self._rows = -1, np.empty(0, np.int64)
        self._pictures: dict[int, np.ndarray] = {}
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0, np.uint8))
        if preload:
            with ThreadPoolExecutor() as pool:
                decoded = enumerate(pool.map(_pixels, boxes.pictures))
                self._pictures = {i: pixels for i, pixels in decoded if pixels is not None}

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, i: int) -> Sample:
        start, damaged = self.first + i, -1
        size = self._size(start) if self.rules.sizes else None
        for number in range(start, start + SUBSTITUTES):
            rng = np.random.default_rng([self.rules.seed, number])
            drawn = rng.random() < self.rules.figures
            # A damaged picture's box gives way to the next one; a whole run must not fail for it.
            try:
                sample = self._figure(rng, size) if drawn else self._box(number, rng, size)
            except ImageProblem:
                damaged = self._row(number) if damaged < 0 and not drawn else damaged
                continue
            sample["damaged"] = damaged
            return sample
        raise RunError(f"{SUBSTITUTES} boxes in a row have a damaged picture, such as {self._name(start)}")

    def _size(self, number: int) -> int:
        """Size class of the batch that a sample belongs to."""
        row = self._row(number)
        return int(size_classes(self.boxes.boxes[row : row + 1])[0])

    def _box(self, number: int, rng: np.random.Generator, size_class: int | None) -> Sample:
        row = self._row(number)
        box = self.boxes.boxes[row]
        picture = self._read_again(int(self.boxes.picture[row]))
        margins = random_margins(rng, *self.rules.margin_rate)
        around = jittered(box, self.rules.jitter, rng) if self.rules.jitter else box
        extended = extended_box(around.tolist(), margins)
        size = self.rules.crop_size if size_class is None else self.rules.side(size_class)
        crop = read_crop(picture, extended, size)
        mask = wrapped_box_mask(inclusive_pixels(box), extended, picture.shape[:2], size)
        area = float((box[2] - box[0]) * (box[3] - box[1]))
        prior, placed = self.priors.get(row), None
        if prior is not None and self.rules.jitter:
            placed = place_prior_off(prior.mask, box.tolist(), extended, size)
        elif prior is not None:
            height, width = picture.shape[:2]
            placed = place_prior(prior.mask, inner_box(box, extended, width, height, size), size)
        if placed is not None and self.cutouts and rng.random() < self.rules.paste:
            crop, placed = pasted(crop, placed, self.cutouts, rng)
        trust = 1.0 if prior is None else prior.trust
        return self._augmented(crop, mask, placed, area, False, row, rng, trust)

    def _figure(self, rng: np.random.Generator, size_class: int | None) -> Sample:
        picture, mask = scene(self._patch, self.cutouts, rng) if self.cutouts else draw_figure(self._patch, rng)
        box = bounds(mask)
        assert box is not None  # a figure has a least size
        extended = extended_box(box, random_margins(rng, *self.rules.margin_rate))
        # A figure's own size in pixels means nothing, so its size class is drawn too, or that of its batch.
        if size_class is None:
            size, area = self.rules.crop_size, float(np.exp(rng.uniform(np.log(500), np.log(200_000))))
        else:
            size, area = self.rules.side(size_class), drawn_area(size_class, rng)
        crop, mask = read_crop(picture, extended, size), wrapped_mask(mask, extended, size)
        return self._augmented(crop, mask, None, area, True, -1, rng)

    def _augmented(
        self,
        crop: np.ndarray,
        mask: np.ndarray,
        prior: np.ndarray | None,
        area: float,
        exact: bool,
        row: int,
        rng: np.random.Generator,
        trust: float = 1.0,
    ) -> Sample:
        has_prior = prior is not None
        prior = np.zeros_like(mask) if prior is None else prior
        step = -1 if rng.random() < 0.5 else 1
        crop, mask, prior = crop[:, ::step].copy(), mask[:, ::step].copy(), prior[:, ::step].copy()
        seen = student_colours(crop, rng).copy()
        if self.rules.strong:
            seen = harder(seen, rng)
        return Sample(
            student=torch.from_numpy(seen),
            teacher=torch.from_numpy(crop),
            mask=torch.from_numpy(mask),
            prior=torch.from_numpy(prior),
            has_prior=torch.tensor(has_prior),
            trust=torch.tensor(trust, dtype=torch.float32),
            area=torch.tensor(area, dtype=torch.float32),
            exact=torch.tensor(exact),
            row=row,
            damaged=-1,
        )

    def _patch(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """A random square of a random picture, shrunk or grown to [side,side,3]."""
        picture = self._read(int(self.boxes.picture[rng.integers(len(self.boxes))]))
        height, width = picture.shape[:2]
        length = max(1, int(min(height, width) * rng.uniform(0.25, 1.0)))
        x, y = rng.integers(0, width - length + 1), rng.integers(0, height - length + 1)
        return read_crop(picture, (x, y, x + length, y + length), side)

    def _name(self, number: int) -> str:
        return self.boxes.pictures[int(self.boxes.picture[self._row(number)])].name

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, self.epoch_length)
        return int(self._order(epoch)[place])

    def _read_again(self, picture: int) -> np.ndarray:
        """A picture whose next box may follow: decoded once while its boxes come one after the other."""
        if self._last[0] != picture:
            self._last = picture, self._read(picture)
        return self._last[1]

    def _read(self, picture: int) -> np.ndarray:
        held = self._pictures.get(picture)
        return self.boxes.pictures[picture].read() if held is None else held

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch != epoch:
            self._epoch = epoch
            self._rows = epoch_order(self.boxes, self.rules.order, self.rules.seed, epoch)
        return self._rows


def _pixels(picture: TrainingPicture) -> np.ndarray | None:
    """None for a damaged one, which gives way when its box is due."""
    try:
        return picture.read()
    except ImageProblem:
        return None
