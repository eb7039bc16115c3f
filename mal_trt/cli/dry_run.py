"""What --dry-run shows, of all verbs that have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mal_trt.cli.output import show_skipped

if TYPE_CHECKING:
    from mal_trt.calibration.dry_run import CalibrationForecast
    from mal_trt.labelling.dry_run import LabelForecast
    from mal_trt.training.dry_run import TrainForecast


def show_label(found: LabelForecast) -> None:
    """What `label` would do."""
    if found.read:
        typer.echo(found.read)
    typer.echo(
        f"would label {found.boxes:,} of {found.total:,} boxes ({_sizes(found.sizes)}) on {found.pictures:,} pictures"
    )
    show_skipped(found.skipped, "would be skipped")
    typer.echo(f"  model: {found.model} ({found.precision}) by {found.provider}, {found.batch} boxes at once")
    _show_files(found.writes, found.notes)
    if found.seconds is not None and found.boxes_per_second is not None:
        typer.echo(
            f"  would take {about(found.seconds)}, at {found.boxes_per_second:.1f} boxes/s (measured on "
            f"{found.measured:,} boxes in {found.measured_seconds:.1f} s), and writing on top"
        )
        show_skipped(found.failed, "of these were skipped")


def show_calibration(found: CalibrationForecast) -> None:
    """What `calibrate` would do."""
    layers = ", ".join(f"{count} {group}" for group, count in found.layers.items())
    typer.echo(f"would make {found.to} of {found.model} ({found.precision}): {layers} layers")
    for crops, what in ((found.crops, "to take ranges from"), (found.check_crops, "to check on")):
        typer.echo(f"  {sum(crops.values()):,} crops {what} ({_sizes(crops)})")
    typer.echo(f"  on {found.pictures:,} pictures")
    if found.unreadable:
        typer.echo(f"  {found.unreadable} boxes of the first few could not be read")
    _show_files(found.writes, found.notes)
    least, most = about(found.seconds_least), about(found.seconds_most)
    span = least if least == most else f"{least}, or up to {most.removeprefix('about ')} if layers must be left out"
    typer.echo(f"  would take {span} (measured on {found.measured} crops in {found.measured_seconds:.1f} s)")


def show_training(found: TrainForecast) -> None:
    """What `train` would do."""
    held = f", {found.held_back:,} held back to judge by" if found.held_back else ""
    typer.echo(f"would train {found.arch} on {found.boxes:,} boxes in {found.pictures:,} pictures{held}")
    show_skipped(found.skipped, "would be left out")
    typer.echo(
        f"  {found.weights / 1e6:.1f} million weights, recipe {found.recipe}, on {found.device} in {found.precision}"
    )
    typer.echo(
        f"  {found.steps:,} steps of {found.boxes_per_step} boxes: {found.epochs:g} epochs of {found.steps_per_epoch:,}"
        + (f"; {found.done:,} are done" if found.done else "")
    )
    _show_files(found.writes, ())
    if found.memory_bytes is not None:
        typer.echo(f"  memory: {found.memory_bytes / (1 << 20):,.0f} MiB of the GPU")
    if found.teacher_boxes:
        typer.echo(f"  the teacher draws {found.teacher_boxes:,} masks first: {about(found.teacher_seconds)}")
    if found.measured:
        validations = f", and {found.validations} validations on top" if found.validations else ""
        typer.echo(
            f"  would take {about(found.seconds)}, at {found.boxes_per_second:.1f} boxes/s (measured on "
            f"{found.measured} steps in {found.measured_seconds:.1f} s){validations}"
        )


def _sizes(count: Mapping[str, int]) -> str:
    return ", ".join(f"{boxes:,} {name}" for name, boxes in count.items() if boxes) or "none"


def _show_files(writes: Sequence[Path], notes: Sequence[str]) -> None:
    typer.echo(f"  would write: {', '.join(map(str, writes))}")
    for note in notes:
        typer.echo(f"  note: {note}")


def about(seconds: float) -> str:
    """A time as people say it."""
    for least, unit, name in ((5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"about {seconds / unit:.1f} {name}"
    return f"about {seconds:.0f} s" if seconds >= 10 else f"about {seconds:.1f} s"
