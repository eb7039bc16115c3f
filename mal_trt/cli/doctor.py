"""The options of `mal-trt doctor`. The work itself is in `measure.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

MARKS = {"ok": "ok     ", "missing": "missing", "warning": "warning"}


def doctor(as_json: Annotated[bool, Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Say what this machine has, and what to do about the rest."""
    from mal_trt.measure.doctor import examine, to_json

    if as_json:
        typer.echo(to_json(list(examine())))
        return
    for finding in examine():
        typer.echo(f"{MARKS[finding.status]}  {finding.name}: {finding.value}")
        if finding.advice:
            typer.echo(f"         -> {finding.advice}")
