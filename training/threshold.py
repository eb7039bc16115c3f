"""One mask threshold for a model, from boxes alone: the highest whose masks reach the sides of their boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.labelling.predictor import Predictor
from mal_trt.training.pictures import TrainingBoxes

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 13))
# How much of the best mean agreement between mask and box may be given up for a tighter mask.
TOLERANCE = 0.01


def box_agreement(mask: LocalMask, box: np.ndarray) -> float:
    """IoU of the tight box around a mask with the XYXY box it was made for; 0 for an empty mask."""
    ys, xs = np.nonzero(mask.mask)
    if not ys.size:
        return 0.0
    x0, y0, x1, y1 = mask.x0 + xs.min(), mask.y0 + ys.min(), mask.x0 + xs.max() + 1, mask.y0 + ys.max() + 1
    width = max(0.0, min(x1, box[2]) - max(x0, box[0]))
    height = max(0.0, min(y1, box[3]) - max(y0, box[1]))
    union = (x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - width * height
    return float(width * height / union)


def agreement_by_threshold(model: Path, boxes: TrainingBoxes, samples: int, seed: int = 0) -> dict[float, float]:
    """Mean box agreement of a model's masks on a random sample of training boxes, for each threshold."""
    rows = np.random.default_rng(seed).permutation(len(boxes))[:samples]
    predictor = Predictor(model, "cpu")
    crops = predictor.batch(1)
    found: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    for row in rows:
        try:
            picture = boxes.pictures[boxes.picture[row]].read()
        except ImageProblem:
            continue
        frame = predictor.frame(boxes.boxes[row], picture.shape[1], picture.shape[0])
        predictor.crop(picture, frame, crops[0])
        logits = predictor.run(crops, frame.size_class)[0]
        for threshold in THRESHOLDS:
            mask = mask_from_logits(logits, frame, threshold)
            found[threshold].append(box_agreement(mask, boxes.boxes[row]))
    predictor.close()
    return {threshold: float(np.mean(values)) for threshold, values in found.items()}


def choose_threshold(agreement: dict[float, float]) -> float:
    """The highest threshold whose agreement is within TOLERANCE of the best one's."""
    best = max(agreement.values())
    return max(threshold for threshold, value in agreement.items() if value >= best - TOLERANCE)
