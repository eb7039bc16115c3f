"""Everything a training run is made of; one field, one option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from mal_trt.base.errors import InputError
from mal_trt.training.ranges import check_ranges

LITE = re.compile(r"mal-(lite\d)")
Recipe = Literal["tao", "small", "distill"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainConfig:
    """A training run. images[i] is the folder or tar of the pictures of boxes[i]; defaults are NVIDIA TAO's.

    boxes_format, split, rescale: see `mal_trt.formats.boxes.Boxes`; val_split is the split of val_boxes.

    recipe "tao" is the published objective, order of a step and optimiser; "small" is ours for small data sets:
    a pretrained encoder, the teacher starts as the student's copy, targets follow the objects' colours or an
    ensemble's soft masks, figures may be drawn; "distill" is a small network that learns the soft masks of a finished
    model, the teacher (see `training.teacher`), on the boxes, or those of an ensemble (targets).

    teacher, teacher_weights: of "distill": any model that makes masks, and which of its networks. teacher_cache: the
    file of its masks, by default in `out`.

    Rates: lr is for one box, the optimiser's is lr * boxes per step (batch * accumulate * processes).
    layer_decay: factor on the rate from each ViT block to the one below. encoder_lr, encoder_weight_decay: share of the
    rate, and the decay, for a pyramid's encoder. teacher_momentum_end: where the
    teacher's momentum arrives at the run's end, along a cosine; None keeps it. clip: gradient norm, 0 = off.
    colour: exponent of the colour term in the self-training target, at the run's start and end; 0 leaves it out.
    prior_weight: of the priors in the target, likewise. targets: soft masks of an ensemble (`training.ensemble`),
    which replace the self-training target where it trusts them. trimmed: see NetworkConfig. dense: a network whose
    masks are the target in the place of all others, that which this one was pruned from. jitter: how far each side of
    the box that a crop is cut around may lie off, as a share of the box; the loss keeps the true box. strong: the
    student sees blurred, noisy and partly erased crops too. figures: share of samples that are drawn, with exact masks,
    as shapes or as scenes of cut-outs. paste: share of the crops with a soft mask (of a teacher or an ensemble) into
    which something is pasted, see `training.paste`. cutouts: folder of pictures with a transparent ground, beside the
    objects that the soft masks cut out.
    boxes_per_picture: in an epoch. balance: 0 draws boxes as they come, 1 every class equally often, 0.5 by the
    square root of its count. together: boxes of one picture that follow each other, so it is decoded once.
    sizes: sides of the crops of small, medium and large boxes, pixels; a batch then holds boxes of one size class.
    crop_size is the largest of them. None: crop_size for all.
    precision: "auto" is 16 bit on CUDA, FP32 on the CPU. devices: GPUs (or CPU processes), a count or indices.
    thresholds, test_margin, val_weights and val_flip say how masks are made for validation.
    patience: number of validations no better than the best after which to stop; the best weights, those of the start
    included, become best.pth; None is never. Without val_boxes the validations are those of `training.criteria`, on a
    tenth of the pictures, held back.
    """

    images: tuple[str | Path, ...]
    boxes: tuple[str | Path, ...]
    out: Path
    val_images: str | Path | None = None
    val_boxes: str | Path | None = None
    boxes_format: str | None = None
    split: str | None = None
    val_split: str | None = None
    rescale: bool = False
    arch: str = "vit-mae-base/16"
    layout: str | None = None
    depth: int | None = None
    trimmed: tuple[tuple[str, int], ...] = ()
    head_convs: int = 4
    head_width: int = 256
    head_out: int | None = None
    adjust_scale: bool = True
    scale_ratio_pre: int = 1
    scale_ratio: float = 2.0
    drop_path: float = 0.0
    frozen_stages: tuple[int, ...] = (-1,)
    crop_size: int = 512
    sizes: tuple[int, int, int] | None = None
    recipe: Recipe = "tao"
    teacher: Path | None = None
    teacher_weights: Literal["student", "teacher", "mixed"] | None = None
    teacher_cache: Path | None = None
    start_from: Path | None = None
    batch: int = 3
    accumulate: int = 1
    epochs: float = 10.0
    lr: float = 1e-6
    min_lr_rate: float = 0.2
    waves: float = 1.0
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.9)
    eps: float = 1e-8
    layer_decay: float = 1.0
    encoder_lr: float = 1.0
    encoder_weight_decay: float | None = None
    clip: float = 0.0
    teacher_momentum: float = 0.996
    teacher_momentum_end: float | None = None
    mil_weight: float = 4.0
    mil_steps: int = 1000
    crf_weight: float = 0.5
    crf_steps: int = 4000
    crf_zeta: float = 0.1
    crf_kernel: int = 3
    crf_iterations: int = 100
    crf_size_ratio: float = 1.0
    crf_low: float = 0.1
    crf_high: float = 0.9
    min_area: float = 2048.0
    max_area: float = 1e10
    margin_rate: tuple[float, float] = (0.0, 1.2)
    jitter: float = 0.0
    strong: bool = False
    boxes_per_picture: int | None = None
    balance: float = 0.0
    together: int = 1
    priors: Path | None = None
    prior_weight: tuple[float, float] = (0.6, 0.2)
    colour: tuple[float, float] = (0.5, 0.5)
    targets: Path | None = None
    dense: Path | None = None
    figures: float = 0.0
    paste: float = 0.0
    cutouts: Path | None = None
    seed: int = 1234
    precision: Precision = "auto"
    device: str = "auto"
    devices: int | tuple[int, ...] = 1
    nodes: int = 1
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = True
    workers: int = 2
    preload: bool = False
    resume: bool = False
    resume_from: Path | None = None
    checkpoint_minutes: float = 5.0
    checkpoint_epochs: float | None = 1.0
    checkpoint_steps: int | None = None
    keep: int = 3
    validate_epochs: float = 1.0
    validate_steps: int | None = None
    val_limit: int | None = None
    val_weights: Literal["student", "teacher", "mixed"] = "student"
    val_flip: bool = False
    thresholds: tuple[float, ...] = (0.1,)
    test_margin: float = 0.6
    patience: int | None = None
    log_steps: int = 20
    picture_steps: int = 500

    def __post_init__(self) -> None:
        check_ranges(vars(self))


# What may change between a run and its continuation: nothing that moves a weight, see also JUDGING.
FREE = frozenset(
    (
        *("out", "resume", "resume_from", "device", "workers", "preload", "log_steps", "picture_steps"),
        "teacher_cache",
        *("checkpoint_minutes", "checkpoint_epochs", "checkpoint_steps", "keep"),
        *(
            "validate_epochs",
            "validate_steps",
            "val_images",
            "val_boxes",
            "val_split",
            "val_limit",
            "val_weights",
            "val_flip",
        ),
        *("thresholds", "test_margin"),
    )
)

# Of these what decides where a run with patience stops, and which weights it keeps: not free there.
JUDGING_BY_BOXES = ("val_boxes", "validate_epochs", "validate_steps", "thresholds", "test_margin")
JUDGING = (*JUDGING_BY_BOXES, "val_images", "val_split", "val_limit", "val_weights", "val_flip")

# What each recipe changes of TrainConfig's defaults; docs/verbs/train.md describes them.
RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tao": {},
        "small": {
            "arch": "mal-lite0",
            "crop_size": 192,
            "head_width": 64,
            "adjust_scale": False,
            "batch": 32,
            "epochs": 20.0,
            "lr": 2.5e-5,
            "encoder_lr": 0.15,
            "encoder_weight_decay": 0.01,
            "min_lr_rate": 0.02,
            "warmup_epochs": 0.5,
            "weight_decay": 0.05,
            "betas": (0.9, 0.98),
            "clip": 1.0,
            "teacher_momentum": 0.99,
            "teacher_momentum_end": 0.995,
            "boxes_per_picture": 3,
            "crf_weight": 2.0,
            "crf_zeta": 0.4,
            "crf_iterations": 20,
            "min_area": 256.0,
            "figures": 0.15,
            "test_margin": 0.3,
            "thresholds": (0.3,),
            "val_weights": "teacher",
        },
        "distill": {
            "teacher": Path("bundled"),
            "arch": "mal-edge",
            "crop_size": 192,
            "head_width": 64,
            "adjust_scale": False,
            "batch": 32,
            "epochs": 12.0,
            "lr": 3e-5,
            "encoder_lr": 0.3,
            "encoder_weight_decay": 0.01,
            "min_lr_rate": 0.02,
            "warmup_epochs": 0.2,
            "weight_decay": 0.05,
            "betas": (0.9, 0.98),
            "clip": 1.0,
            "teacher_momentum": 0.99,
            "teacher_momentum_end": 0.995,
            "mil_weight": 1.0,
            "boxes_per_picture": 4,
            "min_area": 256.0,
            "jitter": 0.03,
            "paste": 0.5,
            "figures": 0.2,
            "margin_rate": (0.0, 0.9),
            "test_margin": 0.3,
            "thresholds": (0.5,),
            "val_weights": "teacher",
        },
    }
)

# What a small network of ours is made for, whatever the recipe.
SMALL_NETWORKS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mal-edge": {"crop_size": 160, "head_width": 48},
        "mal-nano": {"crop_size": 128, "head_width": 32},
    }
)

TEACHING = ("teacher", "teacher_weights", "teacher_cache")
# What other networks do not have, or have apart.
OF_PYRAMIDS = ("crop_size", "head_width", "encoder_lr", "encoder_weight_decay", "adjust_scale")

# "small" over a network that MAL trained already: short steps, and stop when they no longer help.
FINE_TUNING: Mapping[str, Any] = MappingProxyType({"batch": 16, "lr": 6e-6, "epochs": 12.0, "patience": 3})

# "small" for an arch that is not of the mal- family.
SMALL_OTHERS: Mapping[str, Any] = MappingProxyType(
    {
        "batch": 16,
        "epochs": 50.0,
        "lr": 1.5e-5,
        "min_lr_rate": 0.02,
        "warmup_epochs": 0.5,
        "weight_decay": 0.05,
        "betas": (0.9, 0.98),
        "clip": 1.0,
        "crf_weight": 2.0,
        "crf_zeta": 0.4,
        "crf_iterations": 20,
        "min_area": 256.0,
        "figures": 0.2,
        "val_weights": "teacher",
    }
)


def recipe_config(recipe: Recipe, *, trained: bool = False, **given: Any) -> TrainConfig:
    """A run of a recipe: its values, and over them the ones given.

    "small" and "distill" begin a mal-lite network with its ImageNet weights, mal-edge and mal-nano with the encoder of
    the bundled model, and leave the stem and two stages as they are; an arch of another family is trained whole, from
    scratch or from the weights given.
    trained: the weights given are those of a whole network of ours, which "small" then only tunes.
    """
    if recipe != "distill" and any(given.get(name) for name in TEACHING):
        raise InputError(f"--{next(n for n in TEACHING if given.get(n)).replace('_', '-')} is for --recipe distill")
    other = not str(given.get("arch", "mal-")).startswith("mal-")
    values = {**(SMALL_OTHERS if other and recipe == "small" else RECIPES[recipe]), "recipe": recipe}
    if recipe == "distill" and other:
        values = {name: value for name, value in values.items() if name not in OF_PYRAMIDS}
    if recipe == "distill" and given.get("targets"):
        values["teacher"] = None
    if recipe != "tao" and trained:
        values |= FINE_TUNING if recipe == "small" else {"lr": FINE_TUNING["lr"]}
    arch = str(given.get("arch", values.get("arch")))
    values |= {**SMALL_NETWORKS.get(arch, {}), **given}
    values["patience"] = values.get("patience") or None
    if sizes := values.get("sizes"):
        if given.get("crop_size") not in (None, sizes[-1]):
            raise InputError(f"crop size {given['crop_size']}: the sizes end with {sizes[-1]}; leave the crop size out")
        values["crop_size"] = sizes[-1]
    lite = LITE.fullmatch(arch)
    if recipe != "tao" and (lite or arch in SMALL_NETWORKS):
        values.setdefault("frozen_stages", (0, 1, 2))
        if not values.get("resume_from"):
            # The bundled model's encoder has seen boxes, and holds all stages that the small networks have.
            values.setdefault("start_from", Path(f"efficientnet-{lite[1]}") if lite else Path("bundled"))
    return TrainConfig(**values)
