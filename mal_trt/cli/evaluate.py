"""`mal-trt evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from mal_trt.cli.options import (
    BatchOption,
    CropsOption,
    DevicesOption,
    FlipOption,
    LabelThresholdOption,
    ModelOption,
    RefineOption,
    ThreadsOption,
    WeightsOption,
    threshold_of,
)


def evaluate(
    annotations: Annotated[Path, Option(help="COCO JSON with boxes and drawn masks, or a folder of YOLO polygons.")],
    images: Annotated[Path | None, Option(help="Pictures: a folder, a .tar or one file.")] = None,
    model: ModelOption = "bundled",
    labels: Annotated[Path | None, Option(help="Score this label file instead of a model.")] = None,
    json: Annotated[Path | None, Option("--json", help="Also write the figures to this file.")] = None,
    threshold: LabelThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    weights: WeightsOption = None,
    batch: BatchOption = None,
    device: DevicesOption = "auto",
    crops: CropsOption = "auto",
    threads: ThreadsOption = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar, no table.")] = False,
) -> None:
    """Mask quality of a model, or of a label file, against drawn masks."""
    from mal_trt.cli.evaluate_table import print_evaluation
    from mal_trt.measure.evaluate import evaluate as run

    result = run(
        images,
        annotations,
        model,
        labels,
        batch=batch,
        device=device,
        crops=crops,
        flip=flip,
        refine=refine,
        weights=weights,
        threshold=threshold_of(threshold),
        threads=threads,
        progress=not quiet,
        json_out=json,
    )
    if not quiet:
        print_evaluation(result)
