"""How the bundled model was made, from boxes alone: `python -m mal_trt.export.bundled --data DIR --out DIR`.

DIR holds one folder a data set, each with images-00.tar and train_boxes.json (COCO layout). Every stage is
skipped where its result exists, and a killed stage continues from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from mal_trt.export import export_onnx
from mal_trt.training.config import TrainConfig, recipe_config
from mal_trt.training.loop import CHECKPOINT, train
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.prior import compute_priors
from mal_trt.training.threshold import agreement_by_threshold, choose_threshold

BOXES_PER_PICTURE = 5
THRESHOLD_SAMPLES = 600
PRIORS = "priors.npz"


def figures_config(images: tuple[Path, ...], boxes: tuple[Path, ...], out: Path) -> TrainConfig:
    """First stage: drawn figures only, so that the network knows what a figure is."""
    return recipe_config(
        "small",
        images=images,
        boxes=boxes,
        out=out,
        arch="vit-mal-tiny/16",
        layout="hybrid",
        depth=6,
        head_width=64,
        adjust_scale=False,
        crop_size=128,
        batch=64,
        epochs=2.2,
        lr=1e-3 / 64,
        min_lr_rate=0.4,
        weight_decay=0.05,
        betas=(0.9, 0.98),
        warmup_epochs=0.2,
        min_area=256.0,
        boxes_per_picture=BOXES_PER_PICTURE,
        figures=1.0,
        precision="bf16",
        workers=1,
        seed=0,
        preload=True,
    )


def boxes_config(figures: TrainConfig, priors: Path) -> TrainConfig:
    """Second stage: boxes with the colour target and GrabCut priors, one figure in five samples."""
    return replace(
        figures,
        priors=priors,
        figures=0.2,
        epochs=9.0,
        lr=8e-4 / 64,
        min_lr_rate=0.02,
        warmup_epochs=0.1,
    )


def detail_config(boxes: TrainConfig) -> TrainConfig:
    """Third stage: the same at 192 pixels, without priors."""
    return replace(
        boxes,
        priors=None,
        crop_size=192,
        figures=0.15,
        epochs=1.4,
        lr=3e-4 / 64,
        warmup_epochs=0.05,
        teacher_momentum=0.99,
    )


def long_config(detail: TrainConfig) -> TrainConfig:
    """Fourth stage: more of the third, from a higher learning rate down again."""
    return replace(detail, epochs=9.5, lr=4e-4 / 64, teacher_momentum=0.995)


def even_config(long: TrainConfig) -> TrainConfig:
    """Fifth stage: the same again, two boxes a picture at most, so that sets with one object a picture count more."""
    return replace(long, boxes_per_picture=2, epochs=30.0, teacher_momentum=0.997)


def more_config(even: TrainConfig) -> TrainConfig:
    """Sixth stage: the same again. Its crops for labels are cut closer than training's, so that an object has more of
    their pixels; training on such crops leaves too little ground around the boxes, and masks grow to fill them."""
    return replace(even, epochs=13.0, test_margin=0.3)


def stages(images: tuple[Path, ...], boxes: tuple[Path, ...], out: Path) -> list[TrainConfig]:
    """All stages, each in its own folder of `out` and from the one before it; the second needs out/priors.npz."""
    figures = figures_config(images, boxes, out / "figures")
    from_boxes = boxes_config(figures, out / PRIORS)
    detail = detail_config(from_boxes)
    long = long_config(detail)
    even = even_config(long)
    chain = [figures]
    for name, stage in (
        ("boxes", from_boxes),
        ("detail", detail),
        ("long", long),
        ("even", even),
        ("more", more_config(even)),
    ):
        chain.append(replace(stage, out=out / name, start_from=chain[-1].out / CHECKPOINT))
    return chain


def sources(data: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The tars of pictures and the documents of boxes of all sets in a folder."""
    sets = sorted(p.parent for p in data.glob("*/train_boxes.json"))
    return tuple(s / "images-00.tar" for s in sets), tuple(s / "train_boxes.json" for s in sets)


def export_bundled(checkpoint: Path, model: Path, boxes: TrainingBoxes, console: Console) -> None:
    """Write `model`: the teacher, weights stored as FP16, refinement by colour, the threshold that the boxes choose."""
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True)
    agreement = agreement_by_threshold(model, boxes, THRESHOLD_SAMPLES)
    threshold = choose_threshold(agreement)
    console.print("box agreement: " + ", ".join(f"{t:g}: {a:.3f}" for t, a in agreement.items()))
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True, thresholds=(threshold,), refine="color")
    console.print(f"done: {model}, threshold {threshold:g}")


def main(
    data: Annotated[Path, typer.Option(help="Folder with one folder a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for priors and checkpoints.")],
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train and export the bundled model: OUT/mal_tiny.onnx."""
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    images, boxes = sources(data)
    configs = stages(images, boxes, out)
    out.mkdir(parents=True, exist_ok=True)
    rows = read_training_boxes(images, boxes, configs[0].min_area, configs[0].max_area)
    if not (out / PRIORS).exists():
        console.print("GrabCut priors")
        compute_priors(rows, np.arange(len(rows)), out / PRIORS, threads)
    for config in configs:
        console.print(config.out.name)
        checkpoint = train(replace(config, resume=True), console)
    export_bundled(checkpoint, out / "mal_tiny.onnx", rows, console)


if __name__ == "__main__":
    typer.run(main)
