"""`mal-trt train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from mal_trt.base.errors import InputError
from mal_trt.cli.options import BoxesFormatOption, SplitOption, needs
from mal_trt.training.config import RECIPES, Precision, Recipe, TrainConfig, recipe_config


def _option(field: str, help: str, *names: str, **more: Any) -> Any:
    """An option without a default of its own, so that a spec or recipe decides where it is not given."""
    default, small = getattr(TrainConfig, field), RECIPES["small"].get(field)
    shown = "" if default in (None, False, (-1,)) else f" [{default}{'' if small is None else f'; small: {small}'}]"
    return Option(*names, help=help + shown, show_default=False, **more)


def train(
    overrides: Annotated[list[str] | None, Argument(metavar="KEY=VALUE", help="Fields of the spec.")] = None,
    spec: Annotated[
        Path | None, Option("--spec", "-e", metavar="<file>", help="Experiment spec (YAML), as of NVIDIA TAO's MAL.")
    ] = None,
    print_spec: Annotated[bool, Option("--print-spec", help="Print a commented spec and stop.")] = False,
    images: Annotated[
        list[Path] | None,
        Option(
            metavar="<path>",
            help="Folder or .tar of pictures; once for each --boxes. Default: where the boxes say they are.",
        ),
    ] = None,
    boxes: Annotated[
        list[Path] | None,
        Option(metavar="<path>", help="Boxes of any format that is read; several in the order of --images."),
    ] = None,
    out: Annotated[Path | None, Option(help="Folder for checkpoints and logs.")] = None,
    val_images: Annotated[Path | None, Option(help="Pictures to validate on.")] = None,
    val_boxes: Annotated[Path | None, Option(help="Their boxes and masks.")] = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    val_split: Annotated[
        str | None, Option("--val-split", metavar="<name>", help="The split of --val-boxes to validate on.")
    ] = None,
    rescale: Annotated[
        bool | None, Option("--rescale", help="Pictures were resized since the boxes were made: scale the boxes.")
    ] = None,
    recipe: Annotated[Recipe | None, Option(help="tao: as published (default). small: small data sets.")] = None,
    arch: Annotated[
        str | None, _option("arch", "vit-mae-base/16, mal-lite0, mal-timm:NAME or a timm backbone.")
    ] = None,
    layout: Annotated[str | None, _option("layout", "patch, conv_stem, timm or hybrid; default: patch.")] = None,
    depth: Annotated[int | None, _option("depth", "Blocks of the ViT; default: its own.", min=1)] = None,
    head_width: Annotated[int | None, _option("head_width", "Channels of the mask head.", min=1)] = None,
    adjust_scale: Annotated[bool | None, _option("adjust_scale", "A mask head grid for each size of box.")] = None,
    crop_size: Annotated[int | None, _option("crop_size", "Side of the crops, pixels.", min=16)] = None,
    start_from: Annotated[
        Path | None, _option("start_from", "A checkpoint, encoder or .onnx; `bundled`; `efficientnet-lite0`.", "--from")
    ] = None,
    frozen_stages: Annotated[
        list[int] | None,
        _option(
            "frozen_stages", "Not trained: 0 patch embedding or stem, i block or stage i; several times.", "--freeze"
        ),
    ] = None,
    layer_decay: Annotated[
        float | None, _option("layer_decay", "Factor on the rate from a ViT block to the one below.")
    ] = None,
    encoder_lr: Annotated[float | None, _option("encoder_lr", "Factor on the rate of a mal-* encoder.")] = None,
    batch: Annotated[int | None, _option("batch", "Boxes per step and device.", min=1)] = None,
    accumulate: Annotated[int | None, _option("accumulate", "Batches per optimiser step.", min=1)] = None,
    epochs: Annotated[float | None, _option("epochs", "Passes over the boxes.")] = None,
    lr: Annotated[float | None, _option("lr", "Learning rate for each box of a step.")] = None,
    warmup_epochs: Annotated[float | None, _option("warmup_epochs", "Epochs of rising rate.")] = None,
    teacher_momentum: Annotated[
        float | None, _option("teacher_momentum", "Share of the teacher kept each step.")
    ] = None,
    teacher_momentum_end: Annotated[
        float | None, _option("teacher_momentum_end", "Its value at the end, along a cosine.")
    ] = None,
    min_area: Annotated[float | None, _option("min_area", "Smallest box trained on, square pixels.")] = None,
    boxes_per_picture: Annotated[
        int | None, _option("boxes_per_picture", "At most so many boxes of a picture in an epoch.", min=1)
    ] = None,
    balance: Annotated[
        float | None,
        _option("balance", "0: boxes as they come, 1: every class equally often.", min=0, max=1),
    ] = None,
    together: Annotated[
        int | None, _option("together", "Boxes of a picture in a row: decoded once, mixed less.", min=1)
    ] = None,
    priors: Annotated[Path | None, _option("priors", "GrabCut priors (.npz), for recipe small.")] = None,
    targets: Annotated[Path | None, _option("targets", "Soft masks of an ensemble (.npz), for recipe small.")] = None,
    jitter: Annotated[
        float | None, _option("jitter", "Crops around boxes whose sides are off by up to this share.", min=0, max=0.5)
    ] = None,
    figures: Annotated[
        float | None, _option("figures", "Share of crops with a drawn figure, for recipe small.", min=0, max=1)
    ] = None,
    seed: Annotated[int | None, _option("seed", "Of weights, crops and order.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, _option("device", "auto: CUDA where it really works.")
    ] = None,
    devices: Annotated[int | None, _option("devices", "GPUs (or CPU processes) of this machine; -1: all GPUs.")] = None,
    precision: Annotated[Precision | None, _option("precision", "auto: 16 bit on GPUs; fp32, bf16 or fp16.")] = None,
    amp: Annotated[bool, Option("--amp", help="The same as --precision bf16.")] = False,
    workers: Annotated[int | None, _option("workers", "Processes that cut crops, for each device.", min=0)] = None,
    preload: Annotated[bool | None, _option("preload", "Keep the decoded pictures in memory.", "--preload")] = None,
    checkpoint_minutes: Annotated[
        float | None, _option("checkpoint_minutes", "Most minutes between checkpoints.")
    ] = None,
    keep: Annotated[int | None, _option("keep", "Best checkpoints kept.", min=0)] = None,
    validate_steps: Annotated[
        int | None, _option("validate_steps", "Steps between validations; default: an epoch's.", min=1)
    ] = None,
    val_limit: Annotated[int | None, _option("val_limit", "Validate on so many boxes only.", min=1)] = None,
    resume: Annotated[bool | None, _option("resume", "Go on from last.pth in --out.", "--resume")] = None,
) -> None:
    """Train student and teacher from boxes alone."""
    flags: dict[str, Any] = {
        "images": tuple(images) if images else None,
        "boxes": tuple(boxes) if boxes else None,
        "out": out,
        "val_images": val_images,
        "val_boxes": val_boxes,
        "boxes_format": boxes_format,
        "split": split,
        "val_split": val_split,
        "rescale": rescale,
        "recipe": recipe,
        "arch": arch,
        "layout": layout,
        "depth": depth,
        "head_width": head_width,
        "adjust_scale": adjust_scale,
        "crop_size": crop_size,
        "start_from": start_from,
        "frozen_stages": tuple(frozen_stages) if frozen_stages else None,
        "layer_decay": layer_decay,
        "encoder_lr": encoder_lr,
        "batch": batch,
        "accumulate": accumulate,
        "epochs": epochs,
        "lr": lr,
        "warmup_epochs": warmup_epochs,
        "teacher_momentum": teacher_momentum,
        "teacher_momentum_end": teacher_momentum_end,
        "min_area": min_area,
        "boxes_per_picture": boxes_per_picture,
        "balance": balance,
        "together": together,
        "priors": priors,
        "targets": targets,
        "jitter": jitter,
        "figures": figures,
        "seed": seed,
        "device": device,
        "devices": devices,
        "precision": precision or ("bf16" if amp else None),
        "workers": workers,
        "preload": preload,
        "checkpoint_minutes": checkpoint_minutes,
        "keep": keep,
        "validate_steps": validate_steps,
        "val_limit": val_limit,
        "resume": resume,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    if print_spec:
        with needs("train"):
            from mal_trt.training.spec import spec_text
        typer.echo(spec_text(_config({"images": (), "boxes": (), "out": Path(), **given})), nl=False)
        return
    if spec is not None or overrides:
        with needs("train"):
            from mal_trt.training.spec import read_spec
        given = {**read_spec(spec, overrides or ()), **given}
    for name, says in (
        ("boxes", "--boxes or dataset.train_ann_path"),
        ("out", "--out or results_dir"),
    ):
        if not given.get(name):
            raise InputError(f"nothing says {name}: give {says}")
    given.setdefault("images", ())
    if given["images"] and len(given["images"]) != len(given["boxes"]):
        raise InputError(
            f"--images given {len(given['images'])} times, --boxes {len(given['boxes'])}: each needs the other"
        )
    with needs("train"):
        from mal_trt.training.loop import train as run
        from mal_trt.training.trainer import network_options
    if given.get("start_from") and "arch" not in given:
        given = {**network_options(given["start_from"]), **given}
    checkpoint = run(_config(given))
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes, one says it
        typer.echo(f"checkpoint: {checkpoint}")


def _config(given: dict[str, Any]) -> TrainConfig:
    return recipe_config(**{"recipe": "tao", **given})
