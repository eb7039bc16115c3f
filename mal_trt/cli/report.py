"""The options of `mal-trt report`. The work itself is in `report.labels`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from mal_trt.cli.options import (
    BoxesFormatOption,
    ImagesOption,
    JsonOption,
    QuietOption,
    SplitOption,
    ThreadsOption,
)
from mal_trt.cli.output import tell

if TYPE_CHECKING:
    from mal_trt.report.write import Report


def report(
    labels: Annotated[
        str, Argument(metavar="LABELS", help="Labels with masks, in any format that boxes are read from.")
    ],
    images: ImagesOption = None,
    out: Annotated[
        Path, Option("--out", "-o", help="The folder to write. An earlier report there is replaced.")
    ] = Path("report"),
    boxes_format: BoxesFormatOption = None,
    split: SplitOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the masks of labels in a browser."""
    from mal_trt.formats.boxes import Boxes
    from mal_trt.report.labels import write_report

    written = write_report(Boxes(labels, boxes_format, split), images, out, threads=threads, progress=not quiet)
    tell(lambda: written, lambda: _show(written), quiet)


def show_report(written: Report, quiet: bool) -> None:
    """Where the report of another verb's result is; with --json on standard error, as that result has been told."""
    if not quiet:
        _show(written)


def _show(written: Report) -> None:
    parts = [f"{written.objects:,} objects"] if written.objects else []
    if written.shown < written.objects:
        parts.append(f"{written.shown:,} of them shown")
    if written.skipped:
        parts.append(f"{written.skipped:,} records skipped")
    if written.unread:
        parts.append(f"{written.unread:,} pictures could not be read")
    typer.echo(f"{written.page}: " + (", ".join(parts) + "; " if parts else "") + "open it in a browser")
