"""`mal-trt convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from mal_trt.cli.options import (
    FormatOption,
    QuietOption,
    SimplifyOption,
)


def convert(
    labels: Annotated[Path, Argument(help="Labels with masks: COCO JSON, or a folder of YOLO polygons.")],
    out: Annotated[Path, Option("--out", "-o", help="File or folder to write.")],
    format: FormatOption = "coco",
    images: Annotated[
        Path | None, Option(help="Their pictures, where the labels do not say how large they are: YOLO.")
    ] = None,
    simplify: SimplifyOption = None,
    quiet: QuietOption = False,
) -> None:
    """Labels in other formats."""
    from mal_trt.labelling.convert import convert as run
    from mal_trt.writers.losses import told

    done = run(labels, out, format, images=images, simplify=simplify, progress=not quiet)
    if quiet:
        return
    typer.echo(f"{done.out}: {done.written} of {done.total} masks written")
    for name, figures in done.losses.items():
        if line := told(name, figures):
            typer.echo(line)
    if done.skipped:
        typer.echo(f"{sum(done.skipped.values())} skipped, listed in {done.skipped_list}:")
        for reason, count in done.skipped.items():
            typer.echo(f"  {count:6}  {reason}")
