"""How good a run's masks are without a drawn mask: boxes held back, and figures whose masks are known exactly.

Scores against drawn masks are `validation`; what they decide is `stopping`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame, make_frame, read_crop
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.training.augment import normalise
from mal_trt.training.config import TrainConfig
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.losses import resize
from mal_trt.training.one_size import batches, size_classes
from mal_trt.training.pictures import Order, TrainingBoxes
from mal_trt.training.threshold import box_agreement, threshold_for
from mal_trt.training.trainer import Trainer, network_config

SHARE, MOST = 0.1, 150  # of the boxes, held back by whole pictures
FIGURES = 150
BATCH = 16


def hold_back(boxes: TrainingBoxes, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, rows to judge by): whole pictures, drawn at random, with a tenth of the boxes, 150 at most.

    Where there are fewer than two pictures, both are all the rows.
    """
    wanted = min(MOST, max(1, round(SHARE * len(boxes))))
    order = np.random.default_rng(seed).permutation(np.unique(boxes.picture))
    if len(order) < 2:
        return np.arange(len(boxes)), np.arange(len(boxes))
    counts = np.cumsum([np.count_nonzero(boxes.picture == picture) for picture in order])
    taken = order[: min(int(np.searchsorted(counts, wanted)) + 1, len(order) - 1)]
    held = np.isin(boxes.picture, taken)
    return np.flatnonzero(~held), np.flatnonzero(held)


class BoxCriteria:
    """Figures of a run's teacher from boxes alone.

    Masks that grow until they fill their boxes fit these ever better, so the boxes are only half of it: figures are
    drawn from the run's own pictures, with exact masks, and there such growth is an error.
    """

    def __init__(self, config: TrainConfig, boxes: TrainingBoxes, held: TrainingBoxes) -> None:
        self.config = config
        self.crops: list[tuple[np.ndarray, Frame]] = []
        for row in np.argsort(held.picture, kind="stable")[:MOST]:
            try:
                picture = held.pictures[held.picture[row]].read()
            except ImageProblem:
                continue
            height, width = picture.shape[:2]
            side = network_config(config).side(SizeClass(size_classes(held.boxes[row : row + 1])[0]))
            frame = make_frame(held.boxes[row], width, height, side, config.test_margin)
            self.crops.append((read_crop(picture, frame.extended, side), frame))
        # The margins that masks are made with, so that a figure's crop is like any other's.
        margin = (config.test_margin, config.test_margin)
        order = Order(one_size=1 if config.sizes else None)
        rules = SampleRules(config.crop_size, config.seed + 1, margin, order, figures=1.0, sizes=config.sizes)
        drawn = Samples(boxes, rules, 0, FIGURES)
        samples = [drawn[number] for number in range(FIGURES)]
        self.figures = [(sample["teacher"], sample["mask"], sample["area"]) for sample in samples]

    @torch.no_grad()
    def run(self, trainer: Trainer) -> dict[str, Any]:
        """fit, the root of the product of: box_agreement, the mean IoU of a mask's own bounding box with the given box;
        figure_iou, the mean IoU of the masks of drawn figures."""
        trainer.teacher.eval()
        agreement = []
        for part in batches(self.crops, lambda crop: crop[1].size, BATCH):
            pixels = torch.from_numpy(np.stack([crop for crop, _ in part]))
            logits = self._logits(trainer, pixels, torch.tensor([frame.area for _, frame in part]))
            for values, (_, frame) in zip(logits[:, 0].cpu().numpy(), part, strict=True):
                mask = mask_from_logits(values, frame, threshold_for(self.config.thresholds, frame.area))
                agreement.append(box_agreement(mask, np.asarray(frame.box)))
        overlaps = []
        for some in batches(self.figures, lambda figure: figure[1].shape[-1], BATCH):
            pixels, masks, areas = (torch.stack(list(v)) for v in zip(*some, strict=True))
            logits = resize(self._logits(trainer, pixels, areas), (masks.shape[-2], masks.shape[-1]))
            for values, mask, area in zip(logits[:, 0].sigmoid().cpu(), masks.bool(), areas.tolist(), strict=True):
                found = values > threshold_for(self.config.thresholds, area)
                overlaps.append(float((found & mask).sum() / (found | mask).sum().clamp_min(1)))
        trainer.teacher.train()
        box, figure = (float(np.mean(values)) if values else 0.0 for values in (agreement, overlaps))
        return {"fit": (box * figure) ** 0.5, "box_agreement": box, "figure_iou": figure, "count": len(agreement)}

    def _logits(self, trainer: Trainer, crops: Tensor, area: Tensor) -> Tensor:
        with trainer.fabric.autocast():
            logits: Tensor = trainer.teacher(normalise(crops.to(trainer.device)), area.to(trainer.device))
        return logits.float()
