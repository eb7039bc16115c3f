"""The threshold chosen without masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.training.config import TrainConfig
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.threshold import (
    THRESHOLDS,
    agreement_by_threshold,
    box_agreement,
    choose_threshold,
    figure_iou_by_threshold,
)

BOX = np.array([10.0, 20.0, 30.0, 40.0])


def test_box_agreement() -> None:
    assert box_agreement(LocalMask(10, 20, np.ones((20, 20), bool)), BOX) == 1
    cross = np.zeros((20, 20), bool)
    cross[10], cross[:, 10] = True, True
    assert box_agreement(LocalMask(10, 20, cross), BOX) == 1
    assert box_agreement(LocalMask(10, 20, np.ones((10, 20), bool)), BOX) == pytest.approx(0.5)
    assert box_agreement(LocalMask(10, 20, np.zeros((20, 20), bool)), BOX) == 0


def test_boxes_and_figures_choose_together() -> None:
    agreement = {0.1: 0.96, 0.2: 0.955, 0.3: 0.94, 0.4: 0.9}
    assert choose_threshold(agreement, dict.fromkeys(agreement, 0.8)) == 0.1
    assert choose_threshold(agreement, {0.1: 0.7, 0.2: 0.78, 0.3: 0.8, 0.4: 0.81}) == 0.3
    assert choose_threshold({0.1: 0.9, 0.2: 0.9}, {0.1: 0.8, 0.2: 0.8}) == 0.2


@pytest.mark.parametrize(("figure", "ground"), [(255, 0), (0, 255)])
def test_figures_are_scored_as_masks_are_made(
    tiny_model: Callable[..., Path], plan: TrainConfig, monkeypatch: pytest.MonkeyPatch, figure: int, ground: int
) -> None:
    """The small model draws what is bright: white figures on black are found, of black ones on white only the rest."""

    def drawn(patch: object, rng: object) -> tuple[np.ndarray, np.ndarray]:
        mask = np.zeros((112, 112), np.uint8)
        mask[30:80, 20:60] = 1
        mask[30:50, 20:40] = 0
        mask[30, 20:60] = mask[30:80, 20] = 1
        return np.where(mask[..., None] > 0, figure, ground).astype(np.uint8).repeat(3, 2), mask

    monkeypatch.setattr("mal_trt.training.data.draw_figure", drawn)
    boxes = read_training_boxes(plan.images, plan.boxes, 100, 1e9)
    found = figure_iou_by_threshold(tiny_model(gain=8.0), boxes, 12)
    assert set(found) == set(THRESHOLDS) and all(0 < value < 1 for value in found.values())
    assert len(set(found.values())) > 3
    assert found[0.5] > 0.8 if figure else found[0.5] < 0.3


def test_agreement_of_each_size(tiny_model: Callable[..., Path], plan: TrainConfig) -> None:
    """The boxes of a size decide for it alone; a size without any takes the mean."""
    boxes = read_training_boxes(plan.images, plan.boxes, 100, 1e9)
    width, height = (boxes.boxes[:, 2 + axis] - boxes.boxes[:, axis] for axis in (0, 1))
    small = width * height <= 32**2
    model = tiny_model(gain=8.0)
    found = agreement_by_threshold(model, boxes, len(boxes))
    assert [set(values) for values in found] == [set(THRESHOLDS)] * 3
    rows = {"small": small, "medium": ~small & (width * height <= 96**2), "large": width * height > 96**2}
    present = [name for name, mask in rows.items() if mask.any()]
    assert present, "the drawn boxes have sizes"
    for values, (name, mask) in zip(found, rows.items(), strict=True):
        if name in present:
            alone = agreement_by_threshold(model, boxes.some(np.flatnonzero(mask)), len(boxes))
            assert values == alone[list(rows).index(name)], name
            assert alone[0] == alone[1] == alone[2], "what is missing is the mean of what is there"
