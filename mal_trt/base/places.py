"""Places that name several files, such as `shard-{000000..000123}.tar`, and copies of those that are URLs."""

from __future__ import annotations

import fnmatch
import glob
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mal_trt.base.errors import InputError
from mal_trt.base.files import NOTHING, file_kind, open_regular
from mal_trt.base.remote import Store, is_url

MOST = 1_000_000  # files that one pattern may name
AT_ONCE = 8  # copies made at the same time

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")


def places(place: str | Path) -> list[str]:
    """The files that a place names: numbers in `{000..123}` and words in `{a,b}` one by one, `*` and `?` looked up; or
    just itself. InputError if a pattern names none."""
    text = str(place)
    if not is_url(text) and file_kind(text) != NOTHING:
        return [text]
    found = _counted(text)
    if any("*" in one or "?" in one for one in found) and not text.startswith(("http://", "https://")):
        found = [file for one in found for file in _looked_up(one)]
        if not found:
            raise InputError(f"{place}: no file is called so; check the pattern")
    return found


def ending_of(places: Sequence[str]) -> str:
    """The ending that all files share, in small letters, such as ".tar"; nothing if they differ."""
    endings = {PurePosixPath(place.partition("?")[0]).suffix.lower() for place in places}
    return endings.pop() if len(endings) == 1 else ""


def split_url(url: str) -> tuple[str, str]:
    """The URL of a file's folder, and the file's name."""
    folder, _, name = url.rstrip("/").rpartition("/")
    if not name or folder.endswith("/"):
        raise InputError(f"{url}: names no file")
    return folder, name


class Copies:
    """Copies of files at URLs, made when they are asked for, the latest of them kept; files on the disk as they are."""

    def __init__(self, kept: int = 2) -> None:
        self._kept = kept
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: OrderedDict[str, Path] = OrderedDict()
        self._made = 0
        self._lock = threading.Lock()

    def open(self, place: str) -> BinaryIO:
        """A file to read; OSError if it cannot be."""
        if not is_url(place):
            return open_regular(place)
        with self._lock:
            if place not in self._files:
                self._files[place] = self._made_of(place)
            self._files.move_to_end(place)
            while len(self._files) > self._kept:
                self._files.popitem(last=False)[1].unlink(missing_ok=True)
            return open_regular(self._files[place])

    def _made_of(self, place: str) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="mal-trt-")
        url, name = split_url(place)
        self._made += 1
        file = Path(self._folder.name) / f"{self._made}-{name[-80:]}"
        Store(url).fetch(name, file)
        return file


def copy_folder(url: str, folder: Path, endings: Sequence[str]) -> list[Path]:
    """Copy the files below a URL that have one of the endings into a folder, with their paths."""
    store = Store(url)
    store.check()
    names = [name for name in store.names() if name.lower().endswith(tuple(endings))]
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(store.fetch, names, files))
    return files


def _counted(text: str) -> list[str]:
    found = _RANGE.search(text)
    if found:
        first, last = found.groups()
        low, high = int(first), int(last)
        if high < low or high - low >= MOST:
            raise InputError(f"{text}: {found.group()} should count up, to at most {MOST:,} files")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        words = [str(number).zfill(width) for number in range(low, high + 1)]
    elif found := _CHOICE.search(text):
        words = found.group(1).split(",")
    else:
        return [text]
    return [one for word in words for one in _counted(text[: found.start()] + word + text[found.end() :])]


def _looked_up(text: str) -> list[str]:
    if not is_url(text):
        return sorted(glob.glob(text))
    fixed = re.split(r"[*?]", text, maxsplit=1)[0].rpartition("/")[0]
    store = Store(fixed)
    store.check()
    names = (f"{fixed}/{name}" for name in store.names())
    return [name for name in names if name.count("/") == text.count("/") and fnmatch.fnmatchcase(name, text)]
