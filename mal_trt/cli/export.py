"""The options of `mal-trt export`. The work itself is in `mal_trt.export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Context, Option

from mal_trt.artifacts.contract import MOST_MARGIN
from mal_trt.artifacts.models import is_bundled
from mal_trt.base.errors import InputError
from mal_trt.cli.options import THRESHOLD, JsonOption, QuietOption, SpecOption, Weights, needs, numbers, sides
from mal_trt.cli.output import messages, tell
from mal_trt.cli.spec_arguments import out_file, read_arguments

if TYPE_CHECKING:
    from mal_trt.calibration.convert import HalfReport
    from mal_trt.export import ExportReport


# What means something for a model that is exported already.
OF_EXPORTED = ("arguments", "spec", "out", "precision", "parity_images", "parity_boxes", "as_json", "quiet")


def export(
    context: Context,
    arguments: Annotated[
        list[str] | None,
        Argument(
            metavar="CHECKPOINT|KEY=VALUE",
            help="A checkpoint of mal-trt, TAO or NVlabs MAL; with --spec the one that it names. With --precision fp16 "
            "also an exported FP32 .onnx file, or `bundled`. Then fields of the spec that are to be different.",
        ),
    ] = None,
    spec: SpecOption = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The .onnx file to write. With --spec: in the folder export of its results_dir."),
    ] = None,
    input_size: Annotated[
        int | None,
        Option(min=16, help="Side of the crops in pixels. Default: as it was trained, or 512 if that is unknown."),
    ] = None,
    sizes: Annotated[
        str | None,
        Option(
            metavar="<sizes>",
            help="Side of the crops of small, medium and large boxes, such as small=128,medium=192,large=320, of a "
            "network trained at these. Default: as it was trained.",
        ),
    ] = None,
    input_dtype: Annotated[Literal["uint8", "float32"], Option(help="Type of the input `image`.")] = "uint8",
    weights: Annotated[
        Weights, Option(help="Which network to export. mixed: both, and the mean of their logits.")
    ] = "student",
    head: Annotated[
        Literal["dynamic", "small", "medium", "large", "fixed"] | None,
        Option(
            help="The grid of the mask head. dynamic: one for each size of box; small, medium, large: that one alone; "
            "fixed: for a network that has only one. Default: dynamic, or what the spec says."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        Option(help="fp16: half precision where that keeps the masks of FP32; not written otherwise."),
    ] = "fp32",
    opset: Annotated[int, Option(help="Version of the ONNX operators.")] = 20,
    fp16_weights: Annotated[
        bool,
        Option("--fp16-weights", help="Store the weights in FP16 and compute in FP32: half the file, the same graph."),
    ] = False,
    arch: Annotated[str | None, Option(help="The network, if the checkpoint does not tell it. As for `train`.")] = None,
    threshold: Annotated[
        str | None,
        Option(
            metavar="<number[,number,number]>",
            help=f"{THRESHOLD}. Default: what the checkpoint says, or 0.1.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        Option(
            min=0,
            max=MOST_MARGIN,
            help="How much crops show around their boxes: a crop is 1 + margin / 2 times as long as its box. "
            "Default: as the checkpoint was validated, 0.6 if unknown.",
        ),
    ] = None,
    refine: Annotated[
        Literal["none", "color"] | None,
        Option(
            help="Whether `label` sharpens this model's masks by colour, if its own --refine does not say. Default: "
            "none, or for a pruned checkpoint what the original had."
        ),
    ] = None,
    parity_images: Annotated[
        str | None,
        Option(metavar="<path|url>", help="Compare with PyTorch on these pictures instead of those in the package."),
    ] = None,
    parity_boxes: Annotated[
        str | None, Option(metavar="<path|url>", help="The boxes in them, in any format that is read.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn a checkpoint into an ONNX file.

    The file is compared with PyTorch on real crops, and written only if it computes the same.
    """
    if (parity_images is None) != (parity_boxes is None):
        raise InputError("--parity-images and --parity-boxes: give both or neither")
    say = messages(quiet)
    model, use = read_arguments(arguments, spec, "export")
    checkpoint = Path(model)
    out = out_file(out, use, model, ".fp16.onnx" if precision == "fp16" else ".onnx")
    if is_bundled(checkpoint) or checkpoint.suffix.lower() == ".onnx":
        if precision != "fp16":
            raise InputError(f"{checkpoint}: exported already; give a checkpoint, or --precision fp16")
        _only_precision(context, checkpoint)
        with needs("calibrate"):
            from mal_trt.calibration.convert import convert
        half = convert(checkpoint, out, images=parity_images, boxes=parity_boxes, say=say)
        line = f"{half.path}: {half.file_bytes / 1e6:.1f} MB; {_agreement(half)}"
        tell(lambda: half, lambda: typer.echo(line), quiet)
        return
    thresholds = numbers(threshold)
    with needs("export"):
        from mal_trt.export import export_onnx
    grid: str = head or "dynamic"
    if use is not None:
        thresholds = use.thresholds if thresholds is None else thresholds
        grid = str(head or use.choice.head)
        if sizes is None:
            input_size = input_size or use.choice.input_size
        margin = use.choice.margin if margin is None else margin
        if use.names_arch:
            from mal_trt.training.checkpoint import read_checkpoint

            if (config := read_checkpoint(checkpoint).config) is not None:
                use.check_arch(config.arch)
    report = export_onnx(
        checkpoint,
        out,
        input_size=input_size,
        sizes=sides(sizes),
        input_dtype=input_dtype,
        weights=weights,
        head=grid,
        opset=opset,
        arch=arch,
        precision=precision,
        fp16_weights=fp16_weights,
        thresholds=thresholds,
        margin=margin,
        refine=refine,
        parity_images=parity_images,
        parity_boxes=parity_boxes,
        say=say,
    )
    tell(lambda: report, lambda: typer.echo(_line(report)), quiet)


def _only_precision(context: Context, model: Path) -> None:
    """InputError for options that were given and say nothing of a model that is exported already."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in OF_EXPORTED
        and getattr(context.get_parameter_source(str(parameter.name)), "name", "") == "COMMANDLINE"
    ]
    if given:
        raise InputError(f"{', '.join(given)}: for checkpoints, and {model} is exported already; leave them out")


def _line(report: ExportReport) -> str:
    rounding = "" if report.rounding is None else f"; FP16 weights moved them by {report.rounding:.1e}"
    return (
        f"{report.path}: {report.file_bytes / 1e6:.1f} MB; ONNX Runtime and PyTorch in float64 differ by at "
        f"most {report.parity.relative:.1e} of the logits' range, PyTorch in float32 by "
        f"{report.parity.float32:.1e}; {report.parity.pixels} pixels of the masks differ{rounding}"
        + (f"; {_agreement(report.half)}" if report.half else "")
    )


def _agreement(half: HalfReport) -> str:
    """How near FP16 is to FP32, in one line."""
    figures = half.agreement
    error, iou, miou = figures["logit_error"], figures["mask_iou"], figures["miou"]
    text = (
        f"FP16 moved the logits by {error['relative_max']:.1e} of their range at most, {error['relative_mean']:.1e} on "
        f"average; mean mask IoU with FP32 {iou['mean']:.4f}, worst {iou['worst']:.4f} ({figures['boxes']} crops)"
    )
    if miou:
        text += f"; mIoU {miou['other']['all']:.4f}, {miou['difference']['all']:+.4f}"
    return text + (f"; {len(half.kept)} nodes kept in FP32 for their range" if half.kept else "")
