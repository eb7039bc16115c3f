"""The options of `mal-trt calibrate`. The work itself is in `mal_trt.calibration`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Context, Option

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError
from mal_trt.cli.options import (
    BoxesFormatOption,
    CheckedImagesOption,
    CheckedMasksOption,
    DryRunOption,
    JsonOption,
    ManyBoxesOption,
    ManyImagesOption,
    QuietOption,
    RescaleOption,
    SpecOption,
    SplitOption,
    ThreadsOption,
    Weights,
    model_of_spec,
    needs,
    paired,
    tell_of_checkpoints,
)
from mal_trt.cli.output import THE_SAME, goes_on, tell
from mal_trt.cli.spec_arguments import ModelArguments, out_file, read_arguments

if TYPE_CHECKING:
    from mal_trt.calibration.calibrate import CalibrationReport
    from mal_trt.formats.boxes import Source


def calibrate(
    context: Context,
    arguments: ModelArguments = None,
    spec: SpecOption = None,
    boxes: ManyBoxesOption = None,
    out: Annotated[
        Path | None,
        Option("--out", "-o", help="The .onnx file to write. With --spec: in the folder calibrate of its results_dir."),
    ] = None,
    images: ManyImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    precision: Annotated[
        Literal["int8", "fp8"], Option(help="Type of the quantised values. fp8 (E4M3) is experimental.")
    ] = "int8",
    target: Annotated[
        Literal["tensorrt", "cpu"],
        Option(help="Whose 8-bit kernels the file is for: TensorRT's on a GPU, or a processor's in ONNX Runtime."),
    ] = "tensorrt",
    observer: Annotated[
        Literal["max", "percentile", "entropy", "mse"],
        Option(help="How a range is chosen from the values that were seen."),
    ] = "mse",
    crops: Annotated[int, Option(min=32, help="How many crops the ranges come from.")] = 512,
    check_crops: Annotated[int, Option(min=1, help="How many other crops the result is checked on.")] = 256,
    layers: Annotated[
        str | None,
        Option(
            metavar="<group,...>",
            help="linear, conv: the encoder's; patch: a ViT's first convolutions; head: the mask head's. "
            "Default: all for a processor; else linear for a ViT, linear,conv,head for a convolutional encoder.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(metavar="<text>", help="Keep layers with this text in their name unquantised."),
    ] = None,
    smooth: Annotated[
        float, Option(min=0, max=1, help="Alpha of SmoothQuant for layers after a normalisation, such as 0.7. 0: off.")
    ] = 0.0,
    max_miou_drop: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            help="How much mIoU may drop, or where fewer than half of the boxes have drawn masks the agreement with "
            "the original's masks. Default: 0.005; of the agreement 0.02, for a processor 0.03.",
        ),
    ] = None,
    annotations: CheckedMasksOption = None,
    annotation_images: CheckedImagesOption = None,
    sensitivity_crops: Annotated[
        int, Option(min=0, help="How many crops each layer is tried alone on. 0: only if the check fails.")
    ] = 48,
    cache: Annotated[
        Path | None, Option(help="A file that keeps what was measured, for the next run to go on from.")
    ] = None,
    weights: Annotated[Weights, Option(help="Which network of a checkpoint to use.")] = "student",
    threads: ThreadsOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make an INT8 or FP8 model that keeps its masks.

    Ranges come from real crops. The result is checked against the model it came from, and written only if it passes.
    """
    given, use = read_arguments(arguments, spec, "calibrate")
    if annotation_images is not None and annotations is None:
        raise InputError("--annotation-images: give --annotations too")
    with needs("calibrate"):
        from mal_trt.calibration.calibrate import calibrate as run
        from mal_trt.calibration.settings import CalibrationSettings
    settings = CalibrationSettings(
        precision=precision,
        observer=observer,
        crops=crops,
        check_crops=check_crops,
        layers=tuple(layers.split(",")) if layers else (),
        exclude=tuple(exclude or ()),
        smooth=smooth,
        max_miou_drop=max_miou_drop,
        sensitivity_crops=sensitivity_crops,
        threads=threads,
        target=target,
    )
    from mal_trt.formats.boxes import Boxes

    kind: str | None = boxes_format
    documents: Sequence[str | Path] | None = boxes
    places: Sequence[str | Path | None] | None = images
    if use is not None:
        kind, split, rescale = kind or use.boxes_format, split or use.split, rescale or use.rescale
        if not boxes and not images:
            found = use.sources()
            documents, places = [path for path, _ in found], [place for _, place in found]
    if not documents and not images:
        raise InputError("nothing says the boxes: give --boxes, or --spec with dataset.train_ann_path")
    sources = paired(places, documents, kind, split, rescale)
    judged: Source | None = None
    if annotations is not None:
        judged = annotation_images or sources[0][0], Boxes(annotations)
    elif use is not None and (drawn := use.judged_on()) is not None:
        judged = drawn[0], Boxes(drawn[1], use.boxes_format, use.val_split, use.rescale)
    tell_of_checkpoints(quiet)
    out = out_file(
        out,
        use,
        given,
        f".{precision}.onnx" if target == "tensorrt" else f".{precision}.{target}.onnx",
        context if dry_run else None,
    )
    model = resolve_model(given, weights) if use is None else model_of_spec(use, given, weights)
    if dry_run:
        from mal_trt.calibration.dry_run import forecast
        from mal_trt.cli.dry_run import show_calibration

        told = forecast(model, out, sources, settings, annotations=judged, cache=cache)
        tell(lambda: told, lambda: show_calibration(told), quiet)
        return
    goes_on(THE_SAME if cache is not None else "")
    report = run(model, out, sources, settings, annotations=judged, cache=cache, progress=not quiet)
    tell(
        lambda: (
            {"path": report.path, "report_path": report.report_path, "file_bytes": report.file_bytes} | report.document
        ),
        lambda: _show(report),
        quiet,
    )


def _show(report: CalibrationReport) -> None:
    from mal_trt.cli.calibrate_table import print_calibration

    print_calibration(report.document)
    typer.echo(f"{report.path}: {report.file_bytes / 1e6:.1f} MB; report: {report.report_path}")
