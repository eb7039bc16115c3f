"""Files read only if they are files, results written in one step. Files that only save time are `base.caches`."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mal_trt.base.errors import InputError, RunError

REGULAR = "a regular file"
NOTHING = "no such folder or file"
KINDS = (
    (stat.S_ISREG, REGULAR),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)
DEVICE = "a device"
IRREGULAR = frozenset(("a named pipe", "a socket", DEVICE))  # never opened
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)")  # `Path` takes one of the two slashes
# What results have and inputs have not: keys of their JSON, the first columns of their CSV.
_RESULTS = (frozenset(("miou", "per_class")), frozenset(("reference", "models")), frozenset(("machine", "models")))
_TABLE = b"model,sha256,precision,"


def file_kind(path: str | Path) -> str:
    """What is at a path, links followed: "a regular file", "a folder", "a named pipe", or why it cannot be told."""
    try:
        return _kind(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except OSError as error:
        return (error.strerror or str(error)).lower()
    except ValueError:  # a null character in the name
        return NOTHING


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, opened to be read. OSError for anything else: reading a pipe or a device may never end."""
    try:
        _refuse(os.stat(path).st_mode)
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "a null character in the name") from None
    try:
        _refuse(os.fstat(number).st_mode)  # it may have changed in between
        return open(number, "rb")
    except BaseException:
        os.close(number)
        raise


def walk_files(root: Path) -> Iterator[str]:
    """Paths below a folder of its regular files, with / between, folder by folder in order of their names; links are
    followed, a folder that is its own child is not. What macOS leaves beside files (`._a.jpg`, `__MACOSX`) is none."""
    yield from _walk(str(root), "", set())


def _walk(folder: str, prefix: str, above: set[tuple[int, int]]) -> Iterator[str]:
    try:
        here = os.stat(folder)
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        return
    key = (here.st_dev, here.st_ino)
    if key in above and here.st_ino:
        return
    folders = []
    for entry in entries:
        if entry.name.startswith("._") or entry.name == "__MACOSX":
            continue
        try:
            if entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir():
                folders.append(entry)
        except OSError:  # a link to itself
            continue
    for entry in folders:
        yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {key})


def _kind(mode: int) -> str:
    return next((name for test, name in KINDS if test(mode)), DEVICE)


def _refuse(mode: int) -> None:
    if _kind(mode) != REGULAR:
        raise OSError(errno.EINVAL, f"{_kind(mode)}, not a regular file")


def check_local(path: str | Path) -> None:
    """InputError if an output that is written on a disk is given as a URL: it would land in a folder called "s3:"."""
    if _URL.match(str(path)):
        raise InputError(
            f"{path}: a URL, and this is written on a disk; give a path (only shards, `mal-trt label "
            "--shard-pictures`, go to a URL)"
        )


def check_folder(path: str | Path | None) -> None:
    """InputError if a result could not be written there because its folder is missing; None is no file at all."""
    if path is None:
        return
    check_local(path)
    if not Path(path).absolute().parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; the result could not be written there")


def check_apart(outputs: Iterable[str | Path | None], inputs: Iterable[object]) -> None:
    """InputError if a file to be written is an input, or lies in a folder of inputs and is no earlier result. Inputs
    may also be names and URLs; None is no file at all."""
    given = [Path(str(path)) for path in inputs if path is not None]
    for out in (Path(path) for path in outputs if path is not None):
        for path in given if out.exists() else ():
            if path.is_dir() and path.resolve() in out.resolve().parents and not _is_result(out):
                raise InputError(f"{out}: lies among the inputs in {path} and would be overwritten; give another name")
            if path.exists() and out.samefile(path):
                raise InputError(f"{out}: is an input and would be overwritten; give another name for the result")


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
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    why = "Not a directory" if not above.is_dir() else "" if os.access(above, os.W_OK) else "not writable"
    if why:
        raise InputError(f"{folder}: cannot hold the output ({why}); choose another folder")


def read_json(path: Path) -> Any:
    """What a JSON file holds; InputError if it cannot be read or is no JSON."""
    try:
        with open_regular(path) as stream:
            return json.loads(stream.read())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except RecursionError:
        raise InputError(f"{path}: not JSON (nested too deeply)") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


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
    write_whole(path, json_bytes(result))


def json_bytes(result: Mapping[str, Any]) -> bytes:
    """A result as `write_json` writes it."""
    return (json.dumps(result, indent=2) + "\n").encode()
