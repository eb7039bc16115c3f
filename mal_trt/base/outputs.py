"""What a command writes: checked before the work, written whole or not at all. Files that only save time are
`base.caches`."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import FOLDER, IRREGULAR, NOTHING, REGULAR, file_kind, open_regular

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)")  # `Path` takes one of the two slashes
# What results have and inputs have not: keys of their JSON, the first columns of their CSV.
_RESULTS = (frozenset(("miou", "per_class")), frozenset(("reference", "models")), frozenset(("machine", "models")))
_TABLE = b"model,sha256,precision,"


def check_local(path: str | Path) -> None:
    """InputError if an output that is written on a disk is given as a URL: it would land in a folder called "s3:"."""
    if _URL.match(str(path)):
        raise InputError(
            f"{path}: a URL, and this is written on a disk; give a path (only shards, `mal-trt label "
            "--shard-pictures`, go to a URL)"
        )


def check_file(path: str | Path | None, endings: Sequence[str] = ()) -> None:
    """InputError if a result could not be written to a file of that name; None is no file at all. endings: those that
    the name may have; none is any."""
    if path is None:
        return
    check_local(path)
    out = Path(path)
    if endings and out.suffix.lower() not in endings:
        raise InputError(f"{path}: the name of this output must end in {' or '.join(endings)}")
    folder = out.absolute().parent
    if file_kind(folder) != FOLDER:
        raise InputError(f"{path}: its folder does not exist; the result could not be written there")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: its folder cannot be written to; choose another")
    kind = file_kind(out)
    if kind == FOLDER:
        raise InputError(f"{path}: a folder; give the name of a file")
    if kind not in (NOTHING, REGULAR, *IRREGULAR):
        raise InputError(f"{path}: cannot be written ({kind}); choose another name")


def check_new(path: Path) -> None:
    """InputError if something has that name already, or if there is no folder for it."""
    if os.path.lexists(path):
        raise InputError(f"{path}: exists and is never overwritten; delete it, or choose another --out")
    check_file(path)


def check_apart(outputs: Iterable[str | Path | None], inputs: Iterable[object]) -> None:
    """InputError if a file to be written is an input, or lies in a folder of inputs and is no earlier result. Inputs
    may also be names and URLs; None is no file at all."""
    there = [(Path(str(path)), file_kind(str(path))) for path in inputs if path is not None]
    given = [(path, kind) for path, kind in there if kind in (FOLDER, REGULAR, *IRREGULAR)]
    for out in (Path(path) for path in outputs if path is not None):
        for path, kind in given if os.path.exists(out) else ():
            if kind == FOLDER and path.resolve() in out.resolve().parents and not _is_result(out):
                raise InputError(f"{out}: lies among the inputs in {path} and would be overwritten; give another name")
            if out.samefile(path):
                raise InputError(f"{out}: is an input and would be overwritten; give another name for the result")


def check_outside(path: Path, out: Path, what: str) -> None:
    """InputError if something else would be written at the output of a run or into it, which would no longer be what
    the run wrote. what: what should have a place of its own, "overlays a folder"."""
    here = path.resolve()
    if out.resolve() in (here, *here.parents):
        raise InputError(f"{path}: lies in the output {out}; give {what} of its own")


def _is_result(path: Path) -> bool:
    """Whether a file is an empty one, or what `evaluate`, `compare` or `benchmark` wrote."""
    try:
        with open_regular(path) as stream:
            content = stream.read()
        if not content or path.suffix.lower() == ".csv":
            return not content or content.startswith(_TABLE)
        found = json.loads(content)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and any(keys <= found.keys() for keys in _RESULTS)


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, with those above it; InputError if none can be written there."""
    check_local(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable")
    except OSError as error:
        raise InputError(f"{folder}: cannot hold the output ({error.strerror}); choose another folder") from None


def could_make_folder(folder: Path) -> None:
    """InputError if `make_folder` would raise it; nothing is made."""
    check_local(folder)
    kinds = ((path, file_kind(path)) for path in (folder.absolute(), *folder.absolute().parents))
    above, kind = next((path, kind) for path, kind in kinds if kind != NOTHING)
    if kind != FOLDER:
        why = "Not a directory" if kind in (REGULAR, *IRREGULAR) else kind
    else:
        why = "" if os.access(above, os.W_OK) else "not writable"
    if why:
        raise InputError(f"{folder}: cannot hold the output ({why}); choose another folder")


SPACE = "free some space or choose another folder"


@contextmanager
def replaced(path: Path, advice: str = SPACE) -> Iterator[Path]:
    """Name of a file to write, which takes the place of `path` when all went well; else nothing is left of it.

    It lies beside `path`, hidden, with the same ending and a name that nobody else uses, here or on another machine.
    What is there and is no file or folder, such as /dev/stdout, is written to itself. RunError, with some advice, if
    the disk refuses.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    part = path.with_name(f".{path.stem}.{secrets.token_hex(6)}.part{path.suffix}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise not_written(path, error, advice) from None
    finally:
        with suppress(OSError):
            part.unlink()


def not_written(path: Path, error: OSError, advice: str = SPACE) -> RunError:
    """The error of a result that the disk refused."""
    return RunError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file as `replaced` does."""
    with replaced(path) as part:
        part.write_bytes(content)


def write_json(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as indented JSON, as `replaced` does."""
    write_whole(path, json_bytes(result))


def json_bytes(result: Mapping[str, Any]) -> bytes:
    """A result as `write_json` writes it."""
    return (json.dumps(result, indent=2) + "\n").encode()
