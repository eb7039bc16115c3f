"""What --dry-run shows, of all verbs that have it."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from mal_trt.labelling.dry_run import LabelForecast


def show_label(found: LabelForecast) -> None:
    """What `label` would do."""
    if found.read:
        typer.echo(found.read)
    sizes = ", ".join(f"{count:,} {name}" for name, count in found.sizes.items() if count)
    typer.echo(
        f"would label {found.boxes:,} of {found.total:,} boxes ({sizes or 'none'}) on {found.pictures:,} pictures"
    )
    show_reasons(found.skipped, "would be skipped")
    typer.echo(f"  model: {found.model} ({found.precision}) by {found.provider}, {found.batch} boxes at once")
    typer.echo(f"  would write: {', '.join(map(str, found.writes))}")
    for note in found.notes:
        typer.echo(f"  note: {note}")
    if found.seconds is not None and found.boxes_per_second is not None:
        typer.echo(
            f"  would take {about(found.seconds)}, at {found.boxes_per_second:.1f} boxes/s (measured on "
            f"{found.measured:,} boxes in {found.measured_seconds:.1f} s), and writing on top"
        )
        show_reasons(found.failed, "of these were skipped")


def show_reasons(reasons: Mapping[str, int], what: str) -> None:
    """How many records are left out, by reason."""
    if reasons:
        typer.echo(f"  {sum(reasons.values()):,} {what}:")
        for reason, count in reasons.items():
            typer.echo(f"  {count:8,}  {reason}")


def about(seconds: float) -> str:
    """A time as people say it."""
    for least, unit, name in ((5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"about {seconds / unit:.1f} {name}"
    return f"about {seconds:.0f} s" if seconds >= 10 else f"about {seconds:.1f} s"
