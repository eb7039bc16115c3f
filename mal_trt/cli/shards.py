"""What `mal-trt label` does with --shard-pictures and --ray. The work itself is in `distributed.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli.output import THE_SAME, goes_on, show_skipped, tell

if TYPE_CHECKING:
    from mal_trt.distributed.run import Sharded
    from mal_trt.formats.boxes import Boxes

ShardPicturesOption = Annotated[
    int | None,
    Option(
        "--shard-pictures",
        min=1,
        help="Write Parquet shards of this many pictures into the folder or URL of --out, each when it is done. "
        "Default: one output; with --ray 1000.",
    ),
]
RayOption = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="[local|auto|ADDRESS]",
        help="Label in shards on a Ray cluster: of this machine, the one it belongs to, or at an address.",
    ),
]
WorkersOption = Annotated[
    int | None, Option("--workers", min=1, help="Processes on Ray. Default: as many as the cluster has room for.")
]
GpusOption = Annotated[
    float, Option("--gpus-per-worker", min=0, help="GPUs of each process on Ray; .25 lets four share one.")
]


def label_in_shards(
    images: str | None, boxes: Boxes, model: str, out: str, given: dict[str, Any], quiet: bool, strict: bool, **how: Any
) -> None:
    """Label, and tell what was done. given: options of `label` that make no sense for shards, None where not given."""
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        named = ", ".join("--" + name.replace("_", "-") for name in wrong)
        raise InputError(f"{named}: not of shards; write them with `mal-trt merge`, then `mal-trt convert`")
    from mal_trt.distributed.run import label_shards

    goes_on(THE_SAME)
    done = label_shards(images, boxes, model, out, progress=not quiet, **how)
    figures = {"boxes_per_second": done.boxes_per_second, "warning": done.warning}
    tell(lambda: vars(done) | figures, lambda: _show(done), quiet)
    if strict and done.skipped:
        raise RunError(f"{sum(done.skipped.values())} boxes skipped (--strict); `mal-trt merge` lists them")


def _show(done: Sharded) -> None:
    if done.before == done.shards:
        typer.echo(f"{done.out}: finished before with the same inputs, left as it is ({done.labelled} boxes)")
    else:
        typer.echo(
            f"{done.out}: {done.labelled} of {done.total} boxes labelled in {done.shards} shards, {done.seconds:.1f} s "
            f"({done.boxes_per_second:.1f} boxes/s) by {done.provider}"
            + (f", {done.before} shards made by an earlier run" if done.before else "")
        )
    show_skipped(done.skipped)
    if done.warning:
        typer.echo(done.warning)
