"""A run with patience: judged from boxes alone, stopped in time, never worse than its start, resumed as it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from killed_run import ended_at
from mal_trt.training import loop
from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.criteria import BoxCriteria, hold_back
from mal_trt.training.loop import train
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.stopping import Stopping
from mal_trt.training.trainer import Trainer


def test_patience() -> None:
    stopping = Stopping(2)
    assert [stopping.judge(value, step) for step, value in enumerate((0.5, 0.5, 0.6, 0.4))] == [
        True,
        False,
        True,
        False,
    ]
    assert not stopping.over
    again = Stopping(2)
    again.load(stopping.state())
    assert not again.judge(0.6, 4) and again.over and (again.best, again.step) == (0.6, 2)
    assert not Stopping(None, best=1.0, since=99).over


def test_whole_pictures_are_held_back(plan: TrainConfig) -> None:
    boxes = read_training_boxes(plan.images, plan.boxes, 100, 1e9)
    rest, held = (boxes.some(rows) for rows in hold_back(boxes))
    assert len(held) == round(0.1 * len(boxes)) and len(rest) + len(held) == len(boxes)
    assert not set(rest.picture) & set(held.picture) and not set(rest.ids) & set(held.ids)
    one = replace(
        boxes, boxes=boxes.boxes[:1], picture=boxes.picture[:1], ids=boxes.ids[:1], category=boxes.category[:1]
    )
    assert [rows.tolist() for rows in hold_back(one)] == [[0], [0]]


class Drawn(torch.nn.Module):
    """In place of a network: high where the crop is red."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__()
        self.everywhere = everywhere

    def forward(self, image: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
        red = image[:, :1] > image[:, 1:2] + 1
        return torch.where(red | self.everywhere, 20.0, -20.0)


def red_figures(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((112, 112), np.uint8)
    mask[30:80, 20:60] = 1
    mask[30:50, 20:40] = 0
    mask[30, 20:60] = mask[30:80, 20] = 1
    return np.where(mask[..., None] > 0, np.uint8([250, 10, 10]), np.uint8([30, 30, 30])), mask


def test_masks_that_fill_their_boxes_are_no_better(
    plan: TrainConfig, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mal_trt.training.data.draw_figure", lambda patch, rng: red_figures(rng))
    boxes = read_training_boxes(plan.images, plan.boxes, 100, 1e9)
    plan = replace(plan, crop_size=112, thresholds=(0.5,))
    criteria, trainer = BoxCriteria(plan, *(boxes.some(rows) for rows in hold_back(boxes))), Trainer(plan, 10)
    trainer.teacher = Drawn(everywhere=False)  # type: ignore[assignment]
    exact = criteria.run(trainer)
    assert exact["figure_iou"] > 0.95 and exact["count"] == 4
    trainer.teacher = Drawn(everywhere=True)  # type: ignore[assignment]
    filling = criteria.run(trainer)
    assert filling["box_agreement"] > 0.95 and filling["figure_iou"] < 0.6
    assert filling["fit"] == pytest.approx((filling["box_agreement"] * filling["figure_iou"]) ** 0.5)


def test_priors_stay_with_their_boxes(plan: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = read_training_boxes(plan.images, plan.boxes, plan.min_area, 1e9)
    masks = np.zeros((len(boxes), 48, 48), np.uint8)
    for row, mask in enumerate(masks):  # of each row another, and all of them good enough to be taken
        mask[:, : 24 + row % 20], mask[24] = 255, 255
    np.savez(tmp_path / "priors.npz", rows=np.arange(len(boxes)), masks=masks)
    seen: dict[tuple[str, Any], np.ndarray] = {}

    class Noting(loop.Samples):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            seen.update({self.boxes.ids[row]: prior.mask for row, prior in self.priors.items()})

    monkeypatch.setattr(loop, "Samples", Noting)
    train(replace(plan, recipe="small", priors=tmp_path / "priors.npz", epochs=0.3, patience=1))
    kept, held = hold_back(boxes)
    assert set(seen) == {boxes.ids[row] for row in kept} and len(held)
    assert all(np.array_equal(seen[boxes.ids[row]], masks[row]) for row in kept)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Figures that the criteria give, one after the other."""
    values: list[float] = []
    left = iter(values)

    def run(self: BoxCriteria, trainer: Trainer) -> dict[str, Any]:
        return {"fit": next(left), "box_agreement": 0.5, "figure_iou": 0.5, "count": 1}

    monkeypatch.setattr(BoxCriteria, "run", run)
    yield values


def test_a_run_that_gets_worse_gives_back_its_start(plan: TrainConfig, scripted: list[float], tmp_path: Path) -> None:
    start = train(replace(plan, out=tmp_path / "first", recipe="small", epochs=0.3))
    scripted += [0.9, 0.8, 0.7, 0.6]
    screen = Console(file=io.StringIO(), width=200)
    plan = replace(plan, recipe="small", start_from=start, lr=1e-2, epochs=5, patience=2, validate_steps=2)
    best = train(plan, screen)
    assert best == plan.out / "best.pth" and read_checkpoint(plan.out / "last.pth").meta["step"] == 4
    before, after = read_checkpoint(start), read_checkpoint(best)
    assert all(torch.equal(before.teacher[name], after.teacher[name]) for name in before.teacher)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "4 steps, stopped early; best.pth holds the best weights, those the run started from" in said
    again = Console(file=io.StringIO(), width=200)
    assert train(replace(plan, resume=True), again) == best, "a run that has stopped has nothing left to do"


def test_a_killed_run_keeps_its_patience(plan: TrainConfig, scripted: list[float]) -> None:
    plan = replace(plan, recipe="small", epochs=5, patience=2, validate_steps=1, checkpoint_steps=1)
    scripted += [0.5, 0.6, 0.4, 0.3]
    with ended_at(3):
        train(plan)
    best = train(replace(plan, resume=True))
    assert read_checkpoint(best).meta["step"] == 1
    rows = list(csv.DictReader((plan.out / "fit.csv").open()))
    assert [(row["step"], float(row["fit"])) for row in rows] == [("0", 0.5), ("1", 0.6), ("2", 0.4), ("3", 0.3)]
