"""A package's folder: written whole or not at all, never over another."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import check_folder


def check_new(out: Path) -> None:
    """InputError if there is already something under that name, or no folder to put it in."""
    if out.is_symlink() or out.exists():
        raise InputError(f"{out}: exists; give the name of a new folder, or delete it")
    check_folder(out)


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
        raise RunError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
