"""The options of `mal-trt doctor`. The work itself is in `measure.doctor`."""

from __future__ import annotations

import typer

from mal_trt.cli.options import JsonOption, QuietOption
from mal_trt.cli.output import tell

MARKS = {"ok": "ok     ", "missing": "missing", "warning": "warning"}


def doctor(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Say what this machine has, and what to do about the rest."""
    from mal_trt.measure.doctor import examine

    tell(lambda: {"findings": list(examine())}, _show, quiet)


def _show() -> None:
    from mal_trt.measure.doctor import examine

    for finding in examine():
        typer.echo(f"{MARKS[finding.status]}  {finding.name}: {finding.value}")
        if finding.advice:
            typer.echo(f"         -> {finding.advice}")
