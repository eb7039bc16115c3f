"""The options of `mal-trt benchmark`. The work itself is in `measure.benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli.options import (
    BackendsOption,
    BoxesFormatOption,
    BoxesOption,
    CropsOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    JsonOutOption,
    LabelThresholdOption,
    QuietOption,
    RefineOption,
    ReportOption,
    RescaleOption,
    SplitOption,
    ThreadsOption,
    WeightsOption,
    command_line,
    needs,
    tell_of_checkpoints,
    threshold_of,
)
from mal_trt.cli.output import tell
from mal_trt.cli.report import show_report


def benchmark(
    model: Annotated[
        list[str] | None,
        Option(
            "--model",
            metavar="<model>",
            help="An .onnx file, an engine, a checkpoint or `bundled` (default). Give it several times to measure "
            "several models; masks are compared with those of the first.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        Option(
            metavar="<path|url>",
            help="The pictures: a folder, .tar or .parquet files, one file, or a URL of these. Default: where the "
            "boxes say they are; without boxes, the example photos.",
        ),
    ] = None,
    boxes: BoxesOption = None,
    annotations: Annotated[
        str | None,
        Option(metavar="<path|url>", help="Boxes with drawn masks, instead of --boxes. Quality is then mIoU."),
    ] = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    count: Annotated[
        int | None, Option(min=1, help="Label this many boxes, spread evenly over all. Default: all.")
    ] = None,
    batch: Annotated[
        str, Option(metavar="<number,...>", help="Batch sizes at which the network alone is measured.")
    ] = "1,8,16,32",
    size: Annotated[
        Literal["small", "medium", "large", "mix"],
        Option(help="Size of the boxes for the network alone. mix: as many of each as there are among the boxes."),
    ] = "mix",
    warm_up: Annotated[int, Option(min=0, help="Runs before the timed ones, within --seconds.")] = 10,
    runs: Annotated[
        int | None,
        Option(min=1, help="Timed runs of each batch size in a round. Default: as many as fit into --seconds."),
    ] = None,
    seconds: Annotated[
        float, Option(min=0, help="Time for each batch size in a round. 5 runs are made at least.")
    ] = 2.0,
    rounds: Annotated[int, Option(min=1, help="How many times everything is measured in turn.")] = 3,
    engine_only: Annotated[
        bool, Option("--engine-only", help="Measure the network alone: no labelling, no quality.")
    ] = False,
    label_batch: Annotated[
        int | None, Option(min=1, help="Batch size for labelling. Default: that of `label`.")
    ] = None,
    json_out: JsonOutOption = None,
    csv: Annotated[Path | None, Option("--csv", help="Write the table to this file.")] = None,
    plot: Annotated[Path | None, Option(help="Draw speed against quality into this .png or .svg file.")] = None,
    report: ReportOption = None,
    device: DeviceOption = "auto",
    backend: BackendsOption = "auto",
    crops: CropsOption = "auto",
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how fast models are, and how good."""
    if plot is not None:
        with needs("benchmark"):
            import matplotlib  # noqa: F401
    tell_of_checkpoints(quiet)
    from mal_trt.report.folder import check_report

    check_report(report, (json_out, csv, plot))
    from mal_trt.cli.benchmark_table import print_benchmark
    from mal_trt.formats.boxes import Boxes
    from mal_trt.measure.benchmark import benchmark as run
    from mal_trt.measure.benchmark_report import all_failed

    def chosen(path: str | None) -> Boxes | None:
        return None if path is None else Boxes(path, boxes_format, split, rescale)

    result: dict[str, Any] = {}
    try:
        run(
            model or ["bundled"],
            images,
            chosen(boxes),
            chosen(annotations),
            batches=_batches(batch),
            size=size,
            warm_up=warm_up,
            runs=runs,
            seconds=seconds,
            rounds=rounds,
            end_to_end=not engine_only,
            label_batch=label_batch,
            count=count,
            device=device,
            backend=backend,
            crops=crops,
            threshold=threshold_of(threshold),
            flip=flip,
            refine=refine,
            weights=weights,
            threads=threads,
            progress=not quiet,
            json_out=json_out,
            csv_out=csv,
            plot_out=plot,
            command=command_line(),
            told=result.update,
        )
    finally:
        if result:  # an interrupted run shows what it has
            tell(lambda: result, lambda: print_benchmark(result), quiet)
        if result and report is not None:
            from mal_trt.report.speed import report_of_benchmark

            show_report(report_of_benchmark(result, report), quiet)
    if errors := all_failed(result):
        raise RunError(f"nothing could be measured: {errors[0]}")


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"--batch {text}: expected numbers with commas between, such as 1,8,16") from None
