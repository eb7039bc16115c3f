"""`mal-trt compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mal_trt.cli.options import (
    BoxesFormatOption,
    DeviceOption,
    FlipOption,
    ImagesOption,
    RefineOption,
    RescaleOption,
    SplitOption,
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
        Path | None, Option(help="Boxes with drawn masks (polygons or RLE), of any format that is read.")
    ] = None,
    boxes: Annotated[Path | None, Option(help="Boxes of any format that is read, where there are no masks.")] = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    rescale: RescaleOption = False,
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
    from mal_trt.formats.boxes import Boxes
    from mal_trt.measure.compare import compare as run

    def chosen(path: Path | None) -> Boxes | None:
        return None if path is None else Boxes(path, boxes_format, split, rescale)

    result = run(
        models,
        images,
        chosen(annotations),
        chosen(boxes),
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
