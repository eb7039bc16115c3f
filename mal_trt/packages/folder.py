"""A package's folder: written whole or not at all, never over another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mal_trt.base.outputs import check_new, not_written


def write_folder(out: Path, files: Mapping[str, str | Path]) -> None:
    """Write a new folder: path inside it -> its text, or the file to copy there. RunError if the disk refuses."""
    check_new(out)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        for name, content in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_text(content, encoding="utf-8")
        os.rename(part, out)
    except OSError as error:
        raise not_written(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
