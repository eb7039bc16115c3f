"""Everything a training run is made of; one field, one option."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Recipe = Literal["tao", "colour"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run. images[i] is the folder or tar of the pictures of boxes[i].

    recipe "tao" is the published objective, schedule and optimiser; "colour" adds the global colour term, drawn
    figures, gradient clipping and a warm-up by steps, for small data sets without pretrained weights.
    """

    images: tuple[Path, ...]
    boxes: tuple[Path, ...]
    out: Path
    arch: str = "vit-mae-base/16"
    layout: str | None = None
    depth: int | None = None
    head_width: int = 256
    adjust_scale: bool = True
    crop_size: int = 512
    recipe: Recipe = "tao"
    start_from: Path | None = None
    batch: int = 4
    epochs: float = 10.0
    lr: float = 1.5e-6
    min_lr_rate: float = 0.2
    weight_decay: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.9)
    warmup_epochs: float = 1.0
    teacher_momentum: float = 0.996
    min_area: float = 2048.0
    max_area: float = 1e10
    margin_rate: tuple[float, float] = (0.0, 1.2)
    boxes_per_picture: int | None = None
    priors: Path | None = None
    figures: float = 0.0
    seed: int = 0
    device: str = "auto"
    amp: bool = False
    workers: int = 1
    preload: bool = False
    resume: bool = False
    checkpoint_minutes: float = 5.0
