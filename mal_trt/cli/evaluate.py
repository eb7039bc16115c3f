"""The options of `mal-trt evaluate`. The work itself is in `measure.evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mal_trt.cli.options import (
    AnnotationsOption,
    BatchOption,
    BoxesFormatOption,
    CropsOption,
    DevicesOption,
    FlipOption,
    ImagesOption,
    LabelThresholdOption,
    ModelOption,
    RefineOption,
    RescaleOption,
    SlackOption,
    SplitOption,
    ThreadsOption,
    WeightsOption,
    threshold_of,
)


def evaluate(
    annotations: AnnotationsOption,
    images: ImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
    model: ModelOption = "bundled",
    labels: Annotated[Path | None, Option(help="Score the masks of this label file instead of a model's.")] = None,
    json: Annotated[Path | None, Option("--json", help="Write the figures to this file too.")] = None,
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
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    slack: SlackOption = 0.0,
    batch: BatchOption = None,
    device: DevicesOption = "auto",
    crops: CropsOption = "auto",
    threads: ThreadsOption = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show no progress bar and no table.")] = False,
) -> None:
    """Say how good masks are, compared with drawn ones."""
    from mal_trt.cli.evaluate_table import print_evaluation
    from mal_trt.formats.boxes import Boxes
    from mal_trt.measure.evaluate import evaluate as run

    result = run(
        images,
        Boxes(annotations, boxes_format, split, rescale),
        model,
        labels,
        batch=batch,
        device=device,
        crops=crops,
        flip=flip,
        refine=refine,
        weights=weights,
        slack=slack,
        threshold=threshold_of(threshold),
        threads=threads,
        progress=not quiet,
        json_out=json,
        points=points,
        worst_out=worst,
    )
    if not quiet:
        print_evaluation(result)
