"""The options of `mal-trt convert`. The work itself is in `labelling.convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from mal_trt.cli.options import (
    BoxesFormatOption,
    FormatOption,
    ImagesOption,
    JsonOption,
    QuietOption,
    SimplifyOption,
    SplitOption,
)
from mal_trt.cli.output import show_skipped, tell

if TYPE_CHECKING:
    from mal_trt.labelling.convert import Converted


def convert(
    labels: Annotated[
        str, Argument(metavar="LABELS", help="Labels with masks, in any format that boxes are read from.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The file or folder to write.")],
    format: FormatOption = "coco",
    images: ImagesOption = None,
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    image_list: Annotated[
        Path | None,
        Option(help="The COCO file whose pictures and classes the labels are of, if they are a bare list of results."),
    ] = None,
    simplify: SimplifyOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write labels in another format."""
    from mal_trt.base.errors import InputError
    from mal_trt.formats.boxes import Boxes
    from mal_trt.labelling.convert import convert as run

    given = Boxes(labels, boxes_format, split, image_list=image_list)
    if images is None and image_list is None and given.bare:
        raise InputError(
            f"{labels}: a list of results, which does not name its pictures; give --image-list, the COCO file that the "
            "results are of, or --images, where pictures are called as their ids"
        )
    done = run(given, out, format, images=images, simplify=simplify, progress=not quiet)
    tell(lambda: done, lambda: _show(done), quiet)


def _show(done: Converted) -> None:
    from mal_trt.writers.losses import describe

    typer.echo(f"{done.out}: {done.written} of {done.total} masks written; {done.read}")
    for name, figures in done.losses.items():
        if line := describe(name, figures):
            typer.echo(line)
    for note in done.notes:
        typer.echo(f"note: {note}")
    show_skipped(done.skipped, listed=done.skipped_list)
