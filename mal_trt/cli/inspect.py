"""The options of `mal-trt inspect`. The work itself is in `artifacts.inspection`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument

from mal_trt.cli.options import JsonOption, QuietOption, needs
from mal_trt.cli.output import tell


def inspect(
    file: Annotated[
        Path, Argument(metavar="FILE", help="A checkpoint, an .onnx file, an engine, `bundled` or `bundled-edge`.")
    ],
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what a model file is, without running it."""
    from mal_trt.artifacts.inspection import inspect as run
    from mal_trt.artifacts.models import is_bundled, resolve_model

    document = run(resolve_model(file) if is_bundled(file) else file, _checkpoint)
    tell(lambda: document, lambda: _show(document), quiet)


def _checkpoint(path: Path) -> dict[str, Any]:
    with needs("train"):
        from mal_trt.training.checkpoint import read_checkpoint
    read = read_checkpoint(path)
    parts = {name: getattr(read, name) for name in ("student", "teacher", "backbone")}
    weights = {name: sum(t.numel() for t in state.values()) for name, state in parts.items() if state is not None}
    config = asdict(read.config) if read.config is not None else None
    return {"format": read.kind, "weights": weights, "config": config, "meta": read.meta}


def _show(document: dict[str, Any]) -> None:
    for key, value in document.items():
        _print(key, value, "")


def _print(key: str, value: Any, indent: str) -> None:
    """One fact a line; what is nested is set in."""
    if isinstance(value, dict) and value:
        typer.echo(f"{indent}{key}:")
        for name, entry in value.items():
            _print(name, entry, indent + "  ")
    elif isinstance(value, (list, tuple)) and any(isinstance(entry, dict) for entry in value):
        for number, entry in enumerate(value):
            _print(f"{key} {number}", entry, indent)
    else:
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        typer.echo(f"{indent}{key}: {'-' if text in (None, '', {}) else text}")
