"""Files looked at and read, but only if they are files. What is written is `base.outputs`."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mal_trt.base.errors import InputError

REGULAR = "a regular file"
NOTHING = "no such folder or file"
FOLDER = "a folder"
KINDS = (
    (stat.S_ISREG, REGULAR),
    (stat.S_ISDIR, FOLDER),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)
DEVICE = "a device"
IRREGULAR = frozenset(("a named pipe", "a socket", DEVICE))  # never opened


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
