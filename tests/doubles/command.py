"""The command, called in this process, or ended in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from mal_trt.cli import app


def call(*arguments: object) -> Any:
    """The result of `mal-trt` with these words: `exit_code`, `stdout`, `stderr`, and both in `output`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def end_in_fp16(folder: Path, *words: str) -> None:
    """SIGTERM to a command, run in an empty folder, while it makes an FP16 model: it must leave nothing there."""
    command = [sys.executable, "-m", "mal_trt.cli", *words, "--precision", "fp16"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "measuring ranges\n"
    assert process.stderr.readline().startswith("comparing FP16")
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "interrupted\n"
    assert not list(folder.iterdir())
