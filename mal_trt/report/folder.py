"""A report's folder: written whole or not at all, in the place of an earlier report but of nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import NOTHING, file_kind
from mal_trt.base.outputs import check_local, make_folder

MARK = "report.json"  # what a report is known again by
PARTS = frozenset((MARK, "index.html", "assets", "data", "crops"))
STRAY = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))  # what systems leave in folders that were looked at


def check_report(path: str | Path | None, outputs: Iterable[str | Path | None] = ()) -> None:
    """InputError if no report could be written there; None is no report at all. outputs: what the same command writes,
    which the report would replace if it lay in its folder."""
    if path is None:
        return
    check_local(path)
    out = _real(Path(path))
    for other in (Path(output) for output in outputs if output is not None):
        if out in ((real := _real(other)), *real.parents):
            raise InputError(f"{other}: lies in the report {path}, which is replaced as a whole; give another name")
    kind = file_kind(out)
    if kind not in (NOTHING, "a folder"):
        raise InputError(f"{path}: {kind}; a report is a folder, give the name of a new one")
    if kind == "a folder" and (foreign := _foreign(out)):
        raise InputError(
            f"{path}: holds files that are no report of mal-trt; give a new or an empty folder ({foreign} is in it)"
        )
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


def _foreign(folder: Path) -> str:
    """The name of something in a folder that is not of an earlier report; empty if there is nothing such."""
    try:
        known = PARTS if "mal_trt_report" in json.loads((folder / MARK).read_bytes()) else frozenset[str]()
    except (OSError, ValueError, TypeError):
        known = frozenset[str]()
    return min((entry.name for entry in folder.iterdir() if entry.name not in known | STRAY), default="")
