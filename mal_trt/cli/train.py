"""`mal-trt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from mal_trt.cli.options import DeviceOption, needs
from mal_trt.errors import InputError
from mal_trt.training.config import Recipe, TrainConfig


def train(
    images: Annotated[list[Path], Option(metavar="<path>", help="Folder or .tar of pictures; once for each --boxes.")],
    boxes: Annotated[
        list[Path],
        Option(metavar="<path>", help="COCO JSON with boxes; give several in the order of --images."),
    ],
    out: Annotated[Path, Option(help="Folder for last.pth and log.csv.")],
    arch: Annotated[str, Option(help="vit-mae-base/16, vit-deit-tiny/16, ... or a timm backbone.")] = TrainConfig.arch,
    layout: Annotated[str | None, Option(help="patch, conv_stem, timm or hybrid; default: patch.")] = None,
    depth: Annotated[int | None, Option(min=1, help="Blocks of the ViT; default: its own.")] = None,
    head_width: Annotated[int, Option(min=1, help="Channels of the mask head.")] = TrainConfig.head_width,
    adjust_scale: Annotated[bool, Option(help="A mask head grid for each size of box.")] = TrainConfig.adjust_scale,
    crop_size: Annotated[int, Option(min=16, help="Side of the crops, pixels.")] = TrainConfig.crop_size,
    recipe: Annotated[
        Recipe, Option(help="tao: as published. colour: small data sets, no pretrained weights.")
    ] = TrainConfig.recipe,
    start_from: Annotated[Path | None, Option("--from", help="Checkpoint or pretrained encoder.")] = None,
    batch: Annotated[int, Option(min=1, help="Boxes per step.")] = TrainConfig.batch,
    epochs: Annotated[float, Option(help="Passes over the boxes.")] = TrainConfig.epochs,
    lr: Annotated[float, Option(help="Learning rate for each box of a batch.")] = TrainConfig.lr,
    warmup_epochs: Annotated[float, Option(help="Epochs of rising rate.")] = TrainConfig.warmup_epochs,
    teacher_momentum: Annotated[
        float, Option(help="Share of the teacher kept each step.")
    ] = TrainConfig.teacher_momentum,
    min_area: Annotated[float, Option(help="Smallest box trained on, square pixels.")] = TrainConfig.min_area,
    boxes_per_picture: Annotated[
        int | None, Option(min=1, help="At most so many boxes of a picture in an epoch.")
    ] = None,
    priors: Annotated[Path | None, Option(help="GrabCut priors (.npz), for recipe colour.")] = None,
    figures: Annotated[
        float, Option(min=0, max=1, help="Share of crops with a drawn figure, for recipe colour.")
    ] = TrainConfig.figures,
    seed: Annotated[int, Option(help="Of weights, crops and order.")] = TrainConfig.seed,
    device: DeviceOption = "auto",
    amp: Annotated[bool, Option("--amp", help="bfloat16 where it is safe.")] = False,
    workers: Annotated[int, Option(min=0, help="Processes that cut crops.")] = TrainConfig.workers,
    preload: Annotated[bool, Option("--preload", help="Keep the decoded pictures in memory.")] = False,
    checkpoint_minutes: Annotated[float, Option(help="Minutes between checkpoints.")] = TrainConfig.checkpoint_minutes,
    resume: Annotated[bool, Option("--resume", help="Go on from last.pth in --out.")] = False,
) -> None:
    """Train student and teacher from boxes alone."""
    if len(images) != len(boxes):
        raise InputError(f"--images given {len(images)} times, --boxes {len(boxes)}: each needs the other")
    config = TrainConfig(
        images=tuple(images),
        boxes=tuple(boxes),
        out=out,
        arch=arch,
        layout=layout,
        depth=depth,
        head_width=head_width,
        adjust_scale=adjust_scale,
        crop_size=crop_size,
        recipe=recipe,
        start_from=start_from,
        batch=batch,
        epochs=epochs,
        lr=lr,
        warmup_epochs=warmup_epochs,
        teacher_momentum=teacher_momentum,
        min_area=min_area,
        boxes_per_picture=boxes_per_picture,
        priors=priors,
        figures=figures,
        seed=seed,
        device=device,
        amp=amp,
        workers=workers,
        preload=preload,
        checkpoint_minutes=checkpoint_minutes,
        resume=resume,
    )
    with needs("train"):
        from mal_trt.training.loop import train as run
    typer.echo(f"checkpoint: {run(config)}")
