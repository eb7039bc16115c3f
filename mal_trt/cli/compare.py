"""The options of `mal-trt compare`. The work itself is in `measure.compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mal_trt.cli.options import (
    AnnotationsOption,
    BoxesFormatOption,
    BoxesOption,
    DeviceOption,
    FlipOption,
    ImagesOption,
    JsonOption,
    JsonOutOption,
    QuietOption,
    RefineOption,
    ReportOption,
    RescaleOption,
    SplitOption,
    ThreadsOption,
    ThresholdOption,
    command_line,
    numbers,
    tell_of_checkpoints,
)
from mal_trt.cli.output import tell
from mal_trt.cli.report import show_report

if TYPE_CHECKING:
    from mal_trt.measure.compare_run import ComparedBox


def compare(
    models: Annotated[
        list[str],
        Argument(
            metavar="MODEL",
            help="Two or more .onnx files, engines, checkpoints or `bundled`. The first is what the others are "
            "compared with.",
        ),
    ],
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    boxes: BoxesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    count: Annotated[
        int | None, Option(min=1, help="Compare on this many boxes, spread evenly over all. Default: all.")
    ] = None,
    json_out: JsonOutOption = None,
    report: ReportOption = None,
    threshold: ThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    batch: Annotated[int, Option(min=1, help="How many boxes the networks see at once.")] = 16,
    device: DeviceOption = "auto",
    backend: Annotated[
        str | None,
        Option(
            "--backend",
            metavar="[auto|onnxruntime|openvino|tensorrt]",
            help="What runs the networks: one for all models, or one for each with commas between. Default: ONNX "
            "Runtime for .onnx files, TensorRT for engines.",
        ),
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say how far models are from the first of them."""
    tell_of_checkpoints(quiet)
    from mal_trt.cli.compare_table import print_comparison
    from mal_trt.formats.boxes import Boxes
    from mal_trt.measure.compare import compare as run

    def chosen(path: str | None) -> Boxes | None:
        return None if path is None else Boxes(path, boxes_format, split, rescale)

    given = chosen(annotations), chosen(boxes)
    seen: list[ComparedBox] = []
    if report is not None:
        from mal_trt.formats.boxes import open_pictures
        from mal_trt.report.comparison import report_of_comparison
        from mal_trt.report.folder import check_report

        check_report(report, (json_out,))
    result = run(
        models,
        images,
        *given,
        count=count,
        batch=batch,
        device=device,
        backend=backend,
        threshold=numbers(threshold),
        flip=flip,
        refine=refine,
        threads=threads,
        progress=not quiet,
        json_out=json_out,
        seen=None if report is None else seen.append,
    )
    tell(lambda: result, lambda: print_comparison(result), quiet)
    if report is not None:
        source = open_pictures(images, given[0] or given[1] or "")
        written = report_of_comparison(result, seen, source, report, command_line(), threads, progress=not quiet)
        show_report(written, quiet)
