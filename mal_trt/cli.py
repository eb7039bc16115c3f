"""The `mal-trt` command: one verb per stage. A verb imports its worker only when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from mal_trt import __version__
from mal_trt.errors import InputError, MalTrtError, RunError
from mal_trt.training.config import Recipe, TrainConfig

if TYPE_CHECKING:
    from mal_trt.labelling import Summary

# Pictures on a contact sheet, taken evenly from all overlays where there are more.
SHEET_PICTURES = 48
RESUMABLE = ("label", "train")


class _Verbs(TyperGroup):
    """Runs a verb; the one place where failures become one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MalTrtError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            again = "; run again with --resume" if ctx.invoked_subcommand in RESUMABLE else ""
            typer.echo(f"interrupted{again}", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Verbs,
    help="Boxes in, masks out: Mask Auto-Labeler (MAL).",
    no_args_is_help=True,
    add_completion=False,
    # Rich's help costs twice the time of the whole command.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Device = Literal["auto", "cpu", "cuda"]
Weights = Literal["student", "teacher", "mixed"]

ImagesOption = Annotated[Path, Option("--images", help="Pictures: a folder, a .tar or one file.")]
ModelOption = Annotated[str, Option("--model", help="A .onnx file of `mal-trt export`, or `bundled`.")]
BatchOption = Annotated[int, Option("--batch", min=1, help="Boxes the network sees at once.")]
DeviceOption = Annotated[Device, Option("--device", help="auto: CUDA where it really works.")]
FlipOption = Annotated[bool, Option("--flip", help="Average with the mirrored crop; half the speed.")]
WeightsOption = Annotated[
    Weights | None,
    Option("--weights", help="Which network of a model that carries both; default: the model's own choice."),
]
ThresholdOption = Annotated[
    str | None,
    Option(
        "--threshold",
        metavar="<number[,number,number]>",
        help="Mask where the probability is above this; three for small, medium, large boxes. Default: the model's.",
    ),
]
ThreadsOption = Annotated[int | None, Option("--threads", min=1, help="CPU threads; default: every core.")]
QuietOption = Annotated[bool, Option("--quiet", "-q", help="No progress bar, no summary.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mal-trt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def label(
    images: ImagesOption,
    boxes: Annotated[Path, Option(help="COCO JSON with the boxes: a data set, or a bare list of results.")],
    model: ModelOption = "bundled",
    out: Annotated[Path, Option(help="File to write.")] = Path("labels.json"),
    format: Annotated[Literal["coco"], Option(help="Format of the output.")] = "coco",
    overlay: Annotated[Path | None, Option(help="Folder for one picture each with its masks drawn in.")] = None,
    sheet: Annotated[Path | None, Option(help="Contact sheet of the overlays; needs --overlay.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where a killed or interrupted run stopped.")] = False,
    strict: Annotated[bool, Option("--strict", help="Exit code 1 if any box had to be skipped.")] = False,
    box_area: Annotated[bool, Option("--box-area", help="Write the box's area, not the mask's.")] = False,
    image_list: Annotated[
        Path | None, Option(help="COCO JSON that names the pictures of a bare list of results.")
    ] = None,
    threshold: ThresholdOption = None,
    flip: FlipOption = False,
    weights: WeightsOption = None,
    batch: BatchOption = 16,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Boxes and pictures in, masks out."""
    if sheet is not None and overlay is None:
        raise InputError("--sheet is made of the overlays; give --overlay DIR too")
    from mal_trt.labelling import label as run

    summary = run(
        images,
        boxes,
        model,
        out,
        batch=batch,
        device=device,
        resume=resume,
        threshold=_numbers(threshold),
        flip=flip,
        weights=weights,
        box_area=box_area,
        overlay=overlay,
        image_list=image_list,
        threads=threads,
        progress=not quiet,
    )
    if sheet is not None and overlay is not None:
        _write_sheet(overlay, sheet)
    if not quiet:
        _print_summary(summary)
    if strict and summary.skipped:
        count = sum(summary.skipped.values())
        raise RunError(f"{count} boxes skipped (--strict), listed in {summary.skipped_list}")


@app.command()
def evaluate(
    annotations: Annotated[Path, Option(help="COCO JSON with boxes and drawn masks.")],
    images: Annotated[Path | None, Option(help="Pictures: a folder, a .tar or one file.")] = None,
    model: ModelOption = "bundled",
    labels: Annotated[Path | None, Option(help="Score this label file instead of a model.")] = None,
    json: Annotated[Path | None, Option("--json", help="Also write the figures to this file.")] = None,
    threshold: ThresholdOption = None,
    flip: FlipOption = False,
    weights: WeightsOption = None,
    batch: BatchOption = 16,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar, no table.")] = False,
) -> None:
    """Mask quality of a model, or of a label file, against drawn masks."""
    from mal_trt.evaluate import evaluate as run
    from mal_trt.evaluate import print_report

    result = run(
        images,
        annotations,
        model,
        labels,
        batch=batch,
        device=device,
        flip=flip,
        weights=weights,
        threshold=_numbers(threshold),
        threads=threads,
        progress=not quiet,
        json_out=json,
    )
    if not quiet:
        print_report(result)


@app.command()
def export(
    checkpoint: Annotated[Path, Argument(metavar="CHECKPOINT", help="Of mal-trt, TAO or NVlabs MAL.")],
    out: Annotated[Path, Option("--out", "-o", help="The .onnx file to write.")],
    input_size: Annotated[
        int | None, Option(min=16, help="Side of the crops, pixels; default: as trained, 512 if unknown.")
    ] = None,
    input_dtype: Annotated[Literal["uint8", "float32"], Option(help="Of the input `image`.")] = "uint8",
    weights: Annotated[Weights, Option(help="mixed: both, and the mean of their logits.")] = "student",
    head: Annotated[
        Literal["dynamic", "small", "medium", "large", "fixed"],
        Option(help="Mask head for every size of box, for one size, or fixed: a network with one scale."),
    ] = "dynamic",
    opset: Annotated[int, Option(help="ONNX operator set.")] = 20,
    fp16_weights: Annotated[
        bool, Option("--fp16-weights", help="Store the weights in FP16: half the file, computed in FP32.")
    ] = False,
    arch: Annotated[str | None, Option(help="Where the checkpoint does not tell: as for `train`.")] = None,
    threshold: ThresholdOption = None,
    parity_images: Annotated[Path | None, Option(help="Compare on these pictures, not the packaged.")] = None,
    parity_boxes: Annotated[Path | None, Option(help="COCO boxes in them.")] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No report.")] = False,
) -> None:
    """Checkpoint to ONNX, compared with PyTorch."""
    thresholds = _numbers(threshold)
    with _needs("export"):
        from mal_trt.export import export_onnx
    report = export_onnx(
        checkpoint,
        out,
        input_size=input_size,
        input_dtype=input_dtype,
        weights=weights,
        head=head,
        opset=opset,
        arch=arch,
        fp16_weights=fp16_weights,
        thresholds=(thresholds,) if isinstance(thresholds, float) else thresholds,
        parity_images=parity_images,
        parity_boxes=parity_boxes,
        progress=None if quiet else lambda text: typer.echo(text, err=True),
    )
    if not quiet:
        rounding = "" if report.rounding is None else f"; FP16 weights moved them by {report.rounding:.1e}"
        typer.echo(
            f"{report.path}: {report.file_bytes / 1e6:.1f} MB; ONNX Runtime and PyTorch differ by at most "
            f"{report.parity.relative:.1e} of the logits' range{rounding}"
        )


@app.command()
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
    with _needs("train"):
        from mal_trt.training.loop import train as run
    typer.echo(f"checkpoint: {run(config)}")


def _numbers(text: str | None) -> float | tuple[float, ...] | None:
    """`0.3` or `0.1,0.2,0.3`."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--threshold {text}: expected a number, or three with commas between") from None
    return values[0] if len(values) == 1 else values


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    """A missing package of an optional part becomes one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "mal_trt":
            raise
        raise RunError(f'`mal-trt {extra}` needs {error.name}; run: pip install "mal-trt[{extra}]"') from None


def _write_sheet(folder: Path, path: Path) -> None:
    from PIL import Image

    from mal_trt.overlay import contact_sheet

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    if not files:
        raise RunError(f"{folder}: holds no overlay, so there is no contact sheet")
    step = max(1, -(-len(files) // SHEET_PICTURES))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([Image.open(p) for p in files[::step]]).save(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: the contact sheet cannot be written ({error})") from None


def _print_summary(summary: Summary) -> None:
    typer.echo(
        f"{summary.out}: {summary.labelled} of {summary.total} boxes labelled in {summary.seconds:.1f} s "
        f"({summary.boxes_per_second:.1f} boxes/s) by {summary.provider}"
        + (f", {summary.resumed} of them done by an earlier run" if summary.resumed else "")
    )
    if summary.skipped:
        typer.echo(f"{sum(summary.skipped.values())} skipped, listed in {summary.skipped_list}:")
        for reason, count in sorted(summary.skipped.items(), key=lambda item: -item[1]):
            typer.echo(f"  {count:6}  {reason}")


def main() -> None:
    """Entry point of the `mal-trt` command."""
    app()


if __name__ == "__main__":
    main()
