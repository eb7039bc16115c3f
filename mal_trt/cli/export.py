"""`mal-trt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from mal_trt.cli.options import ThresholdOption, Weights, needs, numbers


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
    thresholds = numbers(threshold)
    with needs("export"):
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
