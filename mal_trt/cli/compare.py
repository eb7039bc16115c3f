"""`mal-trt compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mal_trt.cli.options import (
    DeviceOption,
    FlipOption,
    ImagesOption,
    RefineOption,
    ThreadsOption,
    ThresholdOption,
    numbers,
)


def compare(
    models: Annotated[
        list[str], Argument(metavar="MODEL MODEL...", help=".onnx files, or `bundled`; the first is the reference.")
    ],
    images: ImagesOption = None,
    annotations: Annotated[
        Path | None, Option(help="COCO JSON with boxes and drawn masks, or a folder of YOLO polygons.")
    ] = None,
    boxes: Annotated[
        Path | None, Option(help="COCO JSON, or a folder of YOLO .txt or VOC .xml, where there are no masks.")
    ] = None,
    count: Annotated[
        int | None, Option(min=1, help="Compare on so many boxes, spread over the document; default: all.")
    ] = None,
    json: Annotated[Path | None, Option("--json", help="Also write the figures to this file.")] = None,
    threshold: ThresholdOption = None,
    flip: FlipOption = False,
    refine: RefineOption = None,
    batch: Annotated[int, Option(min=1, help="Boxes the networks see at once.")] = 16,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress bar, no table.")] = False,
) -> None:
    """How far models are from the first: logits, masks, mIoU."""
    from mal_trt.cli.compare_table import print_comparison
    from mal_trt.measure.compare import compare as run

    result = run(
        models,
        images,
        annotations,
        boxes,
        count=count,
        batch=batch,
        device=device,
        threshold=numbers(threshold),
        flip=flip,
        refine=refine,
        threads=threads,
        progress=not quiet,
        json_out=json,
    )
    if not quiet:
        print_comparison(result)
