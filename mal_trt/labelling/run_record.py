"""The run record beside an output: what was run, on what, with what result. A finished run is known again by it."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mal_trt.backends.choice import AUTO, backend_of
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError
from mal_trt.base.facts import changed
from mal_trt.base.files import NOTHING, REGULAR, file_kind, open_regular
from mal_trt.base.outputs import write_json
from mal_trt.base.version import __version__
from mal_trt.base.versions import library_versions
from mal_trt.labelling.summary import Summary

SCHEMA = 1
HEAD = 1 << 16  # bytes that hold the first record of a list
MORE = "x" * 24  # what the name of a half-written file has besides its own


def record_path(out: Path) -> Path:
    """Where the record of an output lies: beside it."""
    return out.with_name(f"{_beside(out)}.run.json")


def skipped_path(out: str | Path) -> Path:
    """Where the list of records without a mask lies: beside the labels."""
    out = Path(out)
    return out.with_name(f"{_beside(out)}.skipped.json")


def check_beside(out: Path, inputs: Iterable[object]) -> None:
    """InputError if what is written beside an output would overwrite an input, something that is not ours, or what
    belongs to another output, or could not be called so."""
    longest = skipped_path(out)
    if (kind := file_kind(longest.with_name(MORE + longest.name))) not in (NOTHING, REGULAR):
        raise InputError(f"{out}: {longest.name} cannot be written beside it ({kind}); choose another --out")
    for path in (record_path(out), skipped_path(out)):
        if path.exists() and any(Path(str(one)).exists() and path.samefile(str(one)) for one in inputs):
            raise InputError(f"{path}: an input, and would be overwritten beside {out}; choose another --out")
    with suppress(OSError), open_regular(skipped_path(out)) as file:
        if not _lists_skipped(file.read(HEAD)):
            raise InputError(f"{skipped_path(out)}: no list of skipped records; move it, or choose another --out")
    with suppress(OSError), open_regular(record_path(out)) as file:
        content = file.read()
        try:
            owner = json.loads(content)["output"]["name"]
        except (ValueError, TypeError, KeyError, RecursionError):
            if content and not out.exists():  # else there is more to say of the output
                raise InputError(f"{record_path(out)}: no run record; move it, or choose another --out") from None
            return
        if isinstance(owner, str) and owner != out.name and out.with_name(owner).exists():
            raise InputError(f"{record_path(out)}: belongs to {owner}; choose another --out")


def _lists_skipped(head: bytes) -> bool:
    """Whether a file that begins so is a list of skipped records, perhaps of none."""
    text = head.decode("utf-8", "replace").lstrip()
    if not text.startswith("["):
        return not text
    rest = text[1:].lstrip()
    if rest[:1] in ("]", ""):
        return True
    try:
        first, _ = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "reason" in first


def _beside(out: Path) -> str:
    """How the names of the files beside an output begin: other than those of any output beside it."""
    if out.suffix == ".json":
        return out.stem
    return out.name if out.suffix else f"{out.name}.folder"


def write_record(
    summary: Summary, given: Mapping[str, str], used: Mapping[str, str], device: str, threads: int, began: datetime
) -> None:
    """Write the record of a run that has just written `summary.out`.

    given: what a run must have in common with this one to be the same run, by name. used: what the model made of it.
    """
    write_json(
        {
            "schema": SCHEMA,
            "mal_trt": __version__,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "began": began.isoformat(timespec="seconds"),
            "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(summary.seconds, 3),
            "boxes_per_second": round(summary.boxes_per_second, 2),
            "read": summary.read,
            "records": summary.total,
            "labelled": summary.labelled,
            "labelled_by_an_earlier_run": summary.resumed,
            "skipped": summary.skipped,
            "model": {"name": summary.model.name, "sha256": given["model"]},
            "backend": backend_of(summary.provider),
            "provider": summary.provider,
            "precision": summary.precision,
            "device": device,
            "threads": threads,
            "used": dict(used),
            "given": dict(given),
            "notes": list(summary.notes),
            "losses": summary.losses,
            "output": {"name": summary.out.name, **_content(summary.out)},
            "versions": {"python": platform.python_version(), **library_versions()},
        },
        record_path(summary.out),
    )


def finished(out: Path, given: Mapping[str, str], model: Path, backend: str) -> Summary:
    """The summary of the run that made `out`, if it was the same run and its output is still there; else InputError
    says what differs. backend: that now asked for."""
    path = record_path(out)
    record = _read(path, out)
    differ = changed(record["given"], given)
    if backend not in (AUTO, ran := backend_of(record["provider"])):
        differ.append(f"backend was {ran}, now {backend}")
    if differ:
        raise InputError(
            f"{out}: finished by another run, see {path} ({'; '.join(differ)}); choose another --out, or delete it "
            "to label again"
        )
    if {"name": out.name, **_content(out)} != record["output"]:
        raise InputError(f"{out}: no longer what the run of {path} wrote; choose another --out, or delete it")
    skipped: dict[str, int] = record["skipped"]
    return Summary(
        total=record["records"],
        labelled=record["labelled"],
        skipped=skipped,
        resumed=record["labelled"],
        seconds=0.0,
        provider=record["provider"],
        model=model,
        out=out,
        skipped_list=skipped_path(out) if skipped else None,
        notes=tuple(record["notes"]),
        losses=record["losses"],
        finished_before=True,
        read=record.get("read", ""),
        precision=record.get("precision", ""),
    )


def _read(path: Path, out: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] == SCHEMA and record.keys() >= {
            "given",
            "output",
            "records",
            "labelled",
            "skipped",
            "losses",
        }:
            return dict(record)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(
        f"{out}: exists, and {path} does not tell which run wrote it, so there is nothing to resume; "
        "delete it to label again, or choose another --out"
    )


def _content(out: Path) -> dict[str, Any]:
    """What an output is known again by: a file's SHA-256; how many files a folder holds and their bytes."""
    if not out.is_dir():
        return {"bytes": out.stat().st_size, "sha256": file_sha256(out)}
    files = [file for file in out.rglob("*") if file.is_file()]
    return {"bytes": sum(file.stat().st_size for file in files), "files": len(files)}
