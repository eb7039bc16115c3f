"""The options of `mal-trt evaluate`. The work itself is in `measure.evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from mal_trt.artifacts.models import BUNDLED
from mal_trt.base.errors import InputError
from mal_trt.base.outputs import make_folder
from mal_trt.cli.options import (
    AnnotationsOption,
    BackendOption,
    BatchOption,
    BoxesFormatOption,
    CropsOption,
    DevicesOption,
    FlipOption,
    ImagesOption,
    JsonOption,
    JsonOutOption,
    LabelThresholdOption,
    ModelOption,
    OverridesArgument,
    QuietOption,
    RefineOption,
    ReportOption,
    RescaleOption,
    SecondPassOption,
    SlackOption,
    SpecOption,
    SplitOption,
    ThreadsOption,
    WeightsOption,
    command_line,
    model_of_spec,
    needs,
    tell_of_checkpoints,
    threshold_of,
)
from mal_trt.cli.output import tell
from mal_trt.cli.report import show_report

if TYPE_CHECKING:
    from mal_trt.labelling.predictor import Threshold
    from mal_trt.measure.worst import ScoredObject

RESULTS = "results.json"  # in the folder that a spec names


def evaluate(
    overrides: OverridesArgument = None,
    spec: SpecOption = None,
    annotations: AnnotationsOption = None,
    images: ImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    model: ModelOption = None,
    labels: Annotated[Path | None, Option(help="Score the masks of this label file instead of a model's.")] = None,
    json_out: JsonOutOption = None,
    points: Annotated[
        Path | None,
        Option(
            help="A JSON file with points that belong to each object and points that do not: says how many of them "
            "the masks get right. Then no mask need be drawn."
        ),
    ] = None,
    worst: Annotated[
        Path | None,
        Option(help="Draw the twenty masks of lowest IoU, with the drawn ones, into this PNG file."),
    ] = None,
    report: ReportOption = None,
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    slack: SlackOption = 0.0,
    second_pass: SecondPassOption = False,
    batch: BatchOption = None,
    device: DevicesOption = "auto",
    backend: BackendOption = "auto",
    crops: CropsOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say how good masks are, compared with drawn ones."""
    thresholds: Threshold = threshold_of(threshold)
    kind: str | None = boxes_format
    tell_of_checkpoints(quiet)
    if spec is not None or overrides:
        with needs("export"):
            from mal_trt.training.spec_use import read_use
        use = read_use(spec, overrides or (), "evaluate")
        if annotations is None:
            images = images or (None if (found := use.images()) is None else str(found))
            annotations = str(use.boxes())
        kind, split = kind or use.boxes_format, split or use.split
        rescale = rescale or use.rescale
        thresholds = use.thresholds if thresholds is None else thresholds
        batch, flip = batch or use.batch, flip or use.flip
        if json_out is None and (folder := use.folder()) is not None:
            json_out = folder / RESULTS
            make_folder(folder)
        if labels is None:
            model = str(model_of_spec(use, model, weights))
            weights = weights or use.weights
    if annotations is None:
        raise InputError("nothing says the drawn masks: give --annotations, or --spec with dataset.val_ann_path")
    from mal_trt.cli.evaluate_table import print_evaluation
    from mal_trt.formats.boxes import Boxes
    from mal_trt.measure.evaluate import evaluate as run

    boxes = Boxes(annotations, kind, split, rescale)
    seen: list[ScoredObject] = []
    if report is not None:
        from mal_trt.formats.boxes import open_pictures
        from mal_trt.report.evaluation import report_of_evaluation
        from mal_trt.report.folder import check_report

        check_report(report, (json_out, worst))
        source = open_pictures(images, boxes)
    result = run(
        images,
        boxes,
        model or BUNDLED,
        labels,
        batch=batch,
        device=device,
        backend=backend,
        crops=crops,
        flip=flip,
        refine=refine,
        weights=weights,
        slack=slack,
        second_pass=second_pass,
        threshold=thresholds,
        threads=threads,
        progress=not quiet,
        json_out=json_out,
        points=points,
        worst_out=worst,
        seen=None if report is None else seen.append,
    )
    tell(lambda: result, lambda: print_evaluation(result), quiet)
    if report is not None:
        written = report_of_evaluation(result, seen, source, report, command_line(), threads, progress=not quiet)
        show_report(written, quiet)
