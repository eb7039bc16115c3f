"""Results written in one step: a file is whole, or as it was before. Files that only save time are `base.caches`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError


def check_folder(path: str | Path | None) -> None:
    """InputError if a result could not be written there because its folder is missing; None is no file at all."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; the result could not be written there")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by way of a .part file beside it; RunError if the disk refuses."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON, likewise."""
    write_whole(path, (json.dumps(result, indent=2) + "\n").encode())
