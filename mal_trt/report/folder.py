"""A report's folder: written whole or not at all, in the place of an earlier report but of nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import NOTHING, file_kind, make_folder

MARK = "report.json"  # what a report is known again by


def check_report(path: str | Path | None) -> None:
    """InputError if no report could be written there; None is no report at all."""
    if path is None:
        return
    out = _real(Path(path))
    kind = file_kind(out)
    if kind not in (NOTHING, "a folder"):
        raise InputError(f"{path}: {kind}; a report is a folder, give the name of a new one")
    if kind == "a folder" and not _is_report(out) and any(out.iterdir()):
        raise InputError(f"{path}: holds files that are no report of mal-trt; give a new or an empty folder")
    make_folder(out.parent)


@contextmanager
def report_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; when all went well, it takes the place of `path`. RunError if the disk refuses."""
    check_report(path)
    out = _real(path)
    part, old = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        yield part
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(part, out)
        except OSError:
            if old.exists():
                os.rename(old, out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{path}: the report cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_report(folder: Path) -> bool:
    try:
        return "mal_trt_report" in json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError, TypeError):
        return False
