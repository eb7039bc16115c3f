"""The options of `mal-trt merge`. The work itself is in `distributed.merging`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from mal_trt.cli.options import JsonOption, QuietOption
from mal_trt.cli.output import show_skipped, tell

if TYPE_CHECKING:
    from mal_trt.distributed.merging import Merged


def merge(
    shards: Annotated[
        str, Argument(metavar="SHARDS", help="The folder or URL of `mal-trt label --shard-pictures` or `--ray`.")
    ],
    out: Annotated[Path, Option("--out", "-o", help="The COCO file to write.")],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put the shards of a run together, as COCO JSON."""
    from mal_trt.distributed.merging import merge as run

    done = run(shards, out, progress=not quiet)
    tell(lambda: done, lambda: _show(done), quiet)


def _show(done: Merged) -> None:
    typer.echo(
        f"{done.out}: {done.written} of {done.total} boxes in {done.pictures} pictures, from {done.shards} shards"
    )
    show_skipped(done.skipped, listed=done.skipped_list)
