"""Mask thresholds for a model, without a drawn mask: masks must reach the sides of their boxes and fit figures.

The first alone would take the lowest: masks that fill their boxes always reach the sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.boxes import SizeClass, box_iou, size_class
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.local_mask import LocalMask, bounds
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.labelling.predictor import Predictor
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.pictures import TrainingBoxes

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 13))


def threshold_for(thresholds: Sequence[float], area: float) -> float:
    """The threshold of a box by its area in square pixels: of one for all, or three for small, medium and large."""
    return thresholds[size_class(area) if len(thresholds) > 1 else 0]


def box_agreement(mask: LocalMask, box: np.ndarray) -> float:
    """IoU of the tight box around a mask with the XYXY box it was made for; 0 for an empty mask."""
    if (own := bounds(mask.mask)) is None:
        return 0.0
    x0, y0, x1, y1 = mask.x0 + own[0], mask.y0 + own[1], mask.x0 + own[2], mask.y0 + own[3]
    return box_iou((x0, y0, x1, y1), box)


def agreement_by_threshold(
    model: Path, boxes: TrainingBoxes, samples: int, seed: int = 0
) -> tuple[dict[float, float], ...]:
    """Mean box agreement of a model's masks for each threshold, of small, medium and large boxes: of each a random
    sample of the training boxes. Where there are none of a size, it is the mean of all."""
    corners = boxes.boxes
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    sizes = np.array([size_class(float(area)) for area in areas])
    order = np.random.default_rng(seed).permutation(len(boxes))
    predictor = Predictor(model, "cpu", backend="onnxruntime")
    found = [_agreement(predictor, boxes, order[sizes[order] == size][:samples]) for size in SizeClass]
    predictor.close()
    everything = np.concatenate(found)
    return tuple(
        dict(zip(THRESHOLDS, map(float, (values if len(values) else everything).mean(0)), strict=True))
        for values in found
    )


def _agreement(predictor: Predictor, boxes: TrainingBoxes, rows: np.ndarray) -> np.ndarray:
    """Box agreement [n, thresholds] of the rows whose pictures can be read."""
    found = []
    for row in rows:
        try:
            picture = boxes.pictures[boxes.picture[row]].read()
        except ImageProblem:
            continue
        frame = predictor.frame(boxes.boxes[row], picture.shape[1], picture.shape[0])
        crops = predictor.batch(1, frame.size_class)
        predictor.crop(picture, frame, crops[0])
        logits = predictor.run(crops, frame.size_class)[0]
        found.append([box_agreement(mask_from_logits(logits, frame, t), boxes.boxes[row]) for t in THRESHOLDS])
    return np.array(found).reshape(-1, len(THRESHOLDS))


def figure_iou_by_threshold(model: Path, boxes: TrainingBoxes, samples: int, seed: int = 77) -> dict[float, float]:
    """Mean IoU of a model's masks of drawn figures, whose masks are exact, for each threshold.

    The figures are drawn from the pictures of the boxes and cut with the model's own margin.
    """
    predictor = Predictor(model, "cpu", backend="onnxruntime")
    contract = predictor.contract
    size, margin = contract.input_size, contract.margin_rate
    drawn = Samples(boxes, SampleRules(size, seed, (margin, margin), figures=1.0), 0, samples)
    crops = predictor.batch(1, SizeClass.LARGE)
    found: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    for sample in (drawn[number] for number in range(samples)):
        true = sample["mask"].numpy() > 0
        inner = bounds(true)
        assert inner is not None  # a figure has a least size
        frame = Frame((0, 0, size, size), (0, 0, size, size), inner, size, size, size)
        crops[0] = sample["teacher"].numpy().transpose(2, 0, 1)
        logits = predictor.run(crops, SizeClass.LARGE if contract.sizes else frame.size_class, [frame])[0]
        for threshold in THRESHOLDS:
            mask = mask_from_logits(logits, frame, threshold).full(size, size)
            found[threshold].append(float((mask & true).sum() / (mask | true).sum()))
    predictor.close()
    return {threshold: float(np.mean(values)) for threshold, values in found.items()}


def choose_threshold(agreement: dict[float, float], figures: dict[float, float]) -> float:
    """The threshold with the highest product of box agreement and IoU of figures; of equals the highest."""
    return max(agreement, key=lambda threshold: (agreement[threshold] * figures[threshold], threshold))
