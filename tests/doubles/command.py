"""The command, called in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from mal_trt.cli import app


def call(*arguments: object) -> Any:
    """The result of `mal-trt` with these words: `exit_code`, `stdout`, `stderr`, and both in `output`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
