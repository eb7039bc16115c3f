"""Box files at URLs: copied to the disk to be read, and called by their URLs in what is said of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.places import copy_folder, places, split_url
from mal_trt.base.remote import Store, joined

# What may be a label file; pictures stay where they are.
ENDINGS = (".json", ".jsonl", ".xml", ".txt", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".data", ".names")
LOOKED_FOR = 3  # names looked for below a URL before pictures are taken to be elsewhere


class BoxCopies:
    """Copies of the box files at a URL, or that a pattern of URLs names, for as long as this lives.

    path: where they lie on the disk. InputError if there are none.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._folder = tempfile.TemporaryDirectory(prefix="mal-trt-boxes-")
        root = Path(self._folder.name)
        found = places(self.url)
        if len(found) > 1:
            for one in found:
                _fetch(one, root / split_url(one)[1])
            self.path = root / split_url(self.url)[1]
            self._from, self._to = str(root), split_url(self.url)[0]
            return
        name = self.url.rpartition("/")[2] or "boxes"
        self.path = root / name
        self._from, self._to = str(self.path), self.url
        if name.lower().endswith(ENDINGS):
            _fetch(self.url, self.path)
        elif not copy_folder(self.url, self.path, ENDINGS):
            raise InputError(f"{self.url}: holds no boxes: no file there ends in {', '.join(ENDINGS)}")

    @contextmanager
    def naming_urls(self) -> Iterator[None]:
        """Messages about the copies inside name the URLs."""
        try:
            yield
        except InputError as error:
            raise InputError(str(error).replace(self._from, self._to)) from None

    def home(self, asked: Sequence[Sequence[str]]) -> str:
        """The URL below which pictures of these names lie; InputError if it cannot be told."""
        folder = self.url if self.path.is_dir() else split_url(self.url)[0]
        homes = [folder]
        if "/" in folder.partition("://")[2]:  # above a host or a bucket lie those of others
            homes.append(folder.rpartition("/")[0])
        names = [paths[0].replace("\\", "/") for paths in asked[:LOOKED_FOR]]
        for place in (f"{home}{below}" for home in homes for below in ("", "/images")):
            try:
                if any(Store(place).is_file(name) for name in names):
                    return place
            except (InputError, PermissionError):
                continue
        wanted = f" ({names[0]!r} is not at {joined(folder, names[0])})" if names else ""
        raise InputError(f"{self.url}: does not say where its pictures are{wanted}; give --images")


def _fetch(url: str, file: Path) -> None:
    folder, name = split_url(url)
    store = Store(folder)
    try:
        store.fetch(name, file)
    except FileNotFoundError:
        store.check()
        raise InputError(f"{url}: no such file; check its name") from None
    except PermissionError:
        raise store.denied(name) from None
