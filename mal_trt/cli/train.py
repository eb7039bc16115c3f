"""The options of `mal-trt train`. The work itself is in `mal_trt.training`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from mal_trt.base.errors import InputError
from mal_trt.cli.options import (
    BoxesFormatOption,
    DryRunOption,
    JsonOption,
    ManyBoxesOption,
    ManyImagesOption,
    OverridesArgument,
    QuietOption,
    SpecOption,
    SplitOption,
    needs,
    sides,
    tell_of_checkpoints,
)
from mal_trt.cli.output import WITH_RESUME, goes_on, messages, tell
from mal_trt.training.config import RECIPES, Precision, Recipe, TrainConfig, recipe_config

# Fields of a spec that name files, by the option that stands in for each.
FILES = {
    "boxes": "dataset.train_ann_path",
    "images": "dataset.train_img_dir",
    "val_boxes": "dataset.val_ann_path",
    "val_images": "dataset.val_img_dir",
}

# What the command takes that is no field of TrainConfig.
OTHERS = ("overrides", "spec", "print_spec", "amp", "dry_run", "as_json", "quiet")


def _option(field: str, help: str, *names: str, **more: Any) -> Any:
    """An option without a default of its own, so that a spec or recipe decides where it is not given."""
    default, small = getattr(TrainConfig, field), RECIPES["small"].get(field)
    shown = "" if default in (None, False, (-1,)) else f" [{default}{'' if small is None else f'; small: {small}'}]"
    return Option(*names, help=help + shown, show_default=False, **more)


def train(
    overrides: OverridesArgument = None,
    spec: SpecOption = None,
    print_spec: Annotated[bool, Option("--print-spec", help="Print a commented spec and stop.")] = False,
    images: ManyImagesOption = None,
    boxes: ManyBoxesOption = None,
    out: Annotated[Path | None, Option(help="The folder for checkpoints and logs.")] = None,
    val_images: Annotated[
        str | None,
        Option(metavar="<path|url>", help="Pictures to validate on. Default: where --val-boxes say they are."),
    ] = None,
    val_boxes: Annotated[str | None, Option(metavar="<path|url>", help="The boxes in them, with drawn masks.")] = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    val_split: Annotated[
        str | None, Option("--val-split", metavar="<name>", help="The split of --val-boxes to validate on.")
    ] = None,
    rescale: Annotated[
        bool | None,
        Option("--rescale", help="Scale the boxes, because the pictures were resized after the boxes were made."),
    ] = None,
    recipe: Annotated[
        Recipe | None,
        Option(
            help="tao: as published. small: for small data sets. distill: a small network learns a teacher's masks. "
            "Default: distill with --teacher, small for mal-* networks, tao for others."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        Option(
            metavar="<model>",
            help="The model whose masks the recipe distill learns: a checkpoint, an .onnx file, an engine or `bundled` "
            "(default).",
        ),
    ] = None,
    teacher_weights: Annotated[
        Literal["student", "teacher", "mixed"] | None,
        Option(help="Which network of --teacher draws, where it has several. Default: as for label."),
    ] = None,
    teacher_cache: Annotated[
        Path | None,
        Option(metavar="<file>", help="The file that keeps the teacher's masks. Default: teacher.masks in --out."),
    ] = None,
    arch: Annotated[
        str | None,
        _option("arch", "The network: vit-mae-base/16, mal-lite0, mal-edge, mal-nano, mal-timm:NAME or a timm model."),
    ] = None,
    layout: Annotated[
        str | None, _option("layout", "How a ViT reads its patches: patch (default), conv_stem or hybrid.")
    ] = None,
    depth: Annotated[
        int | None, _option("depth", "Number of blocks of the ViT. Default: all that it has.", min=1)
    ] = None,
    head_width: Annotated[int | None, _option("head_width", "Number of channels of the mask head.", min=1)] = None,
    adjust_scale: Annotated[
        bool | None, _option("adjust_scale", "Whether the mask head has a grid for each size of box.")
    ] = None,
    crop_size: Annotated[int | None, _option("crop_size", "Side of the crops in pixels.", min=16)] = None,
    sizes: Annotated[
        str | None,
        _option(
            "sizes",
            "Side of the crops of small, medium and large boxes, such as small=128,medium=192,large=320: for one file "
            "that spends less on small boxes. --crop-size is then the largest.",
            metavar="<sizes>",
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        _option(
            "start_from",
            "Start from a checkpoint, an encoder, an .onnx file, `bundled` or `efficientnet-lite0`.",
            "--from",
        ),
    ] = None,
    frozen_stages: Annotated[
        list[int] | None,
        _option(
            "frozen_stages",
            "Do not train this part: 0 is the patch embedding or stem, i is block or stage i. May be repeated.",
            "--freeze",
        ),
    ] = None,
    layer_decay: Annotated[
        float | None, _option("layer_decay", "Learning rate of a ViT block as a share of that of the block above it.")
    ] = None,
    encoder_lr: Annotated[
        float | None, _option("encoder_lr", "Learning rate of a mal-* encoder as a share of the head's.")
    ] = None,
    batch: Annotated[int | None, _option("batch", "Number of boxes in a step, on each device.", min=1)] = None,
    accumulate: Annotated[
        int | None, _option("accumulate", "Number of batches whose gradients are added up for a step.", min=1)
    ] = None,
    epochs: Annotated[float | None, _option("epochs", "How many times all boxes are seen.")] = None,
    lr: Annotated[
        float | None, _option("lr", "Learning rate, for each box of a step: it is multiplied by the batch.")
    ] = None,
    warmup_epochs: Annotated[
        float | None, _option("warmup_epochs", "Epochs in which the learning rate rises from zero.")
    ] = None,
    teacher_momentum: Annotated[
        float | None,
        _option("teacher_momentum", "Share of the teacher that is kept in each step; the rest comes from the student."),
    ] = None,
    teacher_momentum_end: Annotated[
        float | None, _option("teacher_momentum_end", "What --teacher-momentum becomes by the end of the run.")
    ] = None,
    min_area: Annotated[
        float | None, _option("min_area", "Area of the smallest box to train on, in square pixels.")
    ] = None,
    boxes_per_picture: Annotated[
        int | None, _option("boxes_per_picture", "Train on this many boxes of a picture in an epoch, at most.", min=1)
    ] = None,
    balance: Annotated[
        float | None,
        _option("balance", "0: boxes as they come; 1: every class equally often.", min=0, max=1),
    ] = None,
    together: Annotated[
        int | None,
        _option(
            "together",
            "Number of boxes of a picture that follow each other: it is decoded once, but they mix less.",
            min=1,
        ),
    ] = None,
    priors: Annotated[
        Path | None,
        _option(
            "priors",
            "Masks of an earlier model (.npz, see `mal_trt.training.mask_priors`), for the recipe small.",
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        _option("targets", "A file of soft masks of an ensemble (.npz), for the recipes small and distill."),
    ] = None,
    jitter: Annotated[
        float | None,
        _option(
            "jitter",
            "Move the sides of boxes by up to this share of the box, as boxes of detectors are off.",
            min=0,
            max=0.5,
        ),
    ] = None,
    figures: Annotated[
        float | None,
        _option(
            "figures",
            "Share of crops that show a drawn figure with its exact mask, or a scene of cut-outs.",
            min=0,
            max=1,
        ),
    ] = None,
    paste: Annotated[
        float | None,
        _option(
            "paste",
            "Share of crops into which an object is pasted, in front of the one to learn or behind it; for the recipe "
            "distill, or with --targets.",
            min=0,
            max=1,
        ),
    ] = None,
    cutouts: Annotated[
        Path | None,
        _option("cutouts", "A folder of pictures with a transparent ground, to paste beside your own objects."),
    ] = None,
    seed: Annotated[int | None, _option("seed", "Seed of weights, crops and order.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        _option("device", "Where to train. auto takes CUDA where it really works."),
    ] = None,
    devices: Annotated[
        int | None, _option("devices", "Number of GPUs, or of processes on a CPU. -1: all GPUs.")
    ] = None,
    precision: Annotated[
        Precision | None, _option("precision", "Arithmetic of the training. auto: 16 bits on GPUs, fp32 on a CPU.")
    ] = None,
    amp: Annotated[bool, Option("--amp", help="The same as --precision bf16.")] = False,
    workers: Annotated[
        int | None, _option("workers", "Number of processes that cut crops, for each device.", min=0)
    ] = None,
    preload: Annotated[bool | None, _option("preload", "Keep all decoded pictures in memory.", "--preload")] = None,
    checkpoint_minutes: Annotated[
        float | None, _option("checkpoint_minutes", "Minutes between checkpoints, at most.")
    ] = None,
    keep: Annotated[int | None, _option("keep", "Number of best checkpoints to keep.", min=0)] = None,
    validate_steps: Annotated[
        int | None, _option("validate_steps", "Steps between validations. Default: an epoch.", min=1)
    ] = None,
    patience: Annotated[
        int | None,
        _option(
            "patience",
            "Stop after this many validations without a better one, and keep the best weights as best.pth. "
            "Without --val-boxes a tenth of the boxes is held back to judge by. 0: never. Default: 3 from a model of "
            "ours such as bundled, else 0.",
            min=0,
        ),
    ] = None,
    val_limit: Annotated[int | None, _option("val_limit", "Validate on this many boxes only.", min=1)] = None,
    resume: Annotated[bool | None, _option("resume", "Go on from last.pth in --out.", "--resume")] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network from boxes alone."""
    flags: dict[str, Any] = {
        name: (tuple(value) or None) if isinstance(value, list) else value
        for name, value in locals().items()
        if name not in OTHERS
    }
    from mal_trt.base.remote import as_place  # which takes as long as all of --help

    for name in ("images", "boxes"):
        flags[name] = None if flags[name] is None else tuple(map(as_place, flags[name]))
    for name in ("val_images", "val_boxes"):
        flags[name] = None if flags[name] is None else as_place(flags[name])
    flags["precision"] = precision or ("bf16" if amp else None)
    flags["sizes"] = sides(sizes)
    given = {name: value for name, value in flags.items() if value is not None}
    if spec is not None or overrides:
        with needs("train"):
            from mal_trt.training.spec import read_checked, train_values
        checked = read_checked(spec, overrides or ())
        given = {**train_values(checked), **given}
        for field, name in FILES.items():
            if flags[field] is None and given.get(field) and not print_spec:
                checked.path(name)
    if print_spec:
        with needs("train"):
            from mal_trt.training.spec import spec_text
            from mal_trt.training.start import completed
        given, _ = completed({"images": (), "boxes": (), "out": Path(), **given})
        typer.echo(spec_text(_config(given)), nl=False)
        return
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
        from mal_trt.training.kept_checkpoints import LAST
        from mal_trt.training.loop import train as run
        from mal_trt.training.start import completed
    given, taken = completed(given)
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"  # one of several processes
    if taken and speaks:
        messages(quiet)(taken)
    config = _config(given)
    tell_of_checkpoints(quiet)  # --teacher may be one
    if dry_run:
        from mal_trt.cli.dry_run import show_training
        from mal_trt.training.dry_run import forecast

        found = forecast(config, show=not quiet and speaks)
        tell(lambda: found, lambda: show_training(found), quiet or not speaks)
        return
    if config.resume and config.resume_from is None and speaks and not (config.out / LAST).exists():
        messages(quiet)(f"nothing to resume in {config.out}: starting anew")
    goes_on(WITH_RESUME)
    checkpoint = run(config, show=not quiet)
    tell(lambda: {"checkpoint": checkpoint}, lambda: typer.echo(f"checkpoint: {checkpoint}"), quiet or not speaks)


def _config(given: dict[str, Any]) -> TrainConfig:
    own = str(given.get("arch", "")).startswith("mal-")
    recipe = "distill" if "teacher" in given else "small" if own else "tao"
    return recipe_config(**{"recipe": recipe, **given})
