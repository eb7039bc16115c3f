"""Pictures at URLs: below one, or each at its own."""

from __future__ import annotations

import io
import threading
from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import BinaryIO
from urllib.parse import urlsplit

from mal_trt.base.remote import Store, is_url
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import clean_name, has_picture_ending
from mal_trt.formats.picture_problem import MISSING, ImageProblem
from mal_trt.formats.pixels import open_picture

EACH = "://"  # the place of pictures whose names are URLs
HEADER = 1 << 16  # bytes that hold most pictures' width and height


class _Remote(ImageSource):
    def size(self, file_name: str) -> tuple[int, int]:
        """See `ImageSource.size`; most often the file's first bytes are enough."""
        name = self.find(file_name)
        store, path = self._at(name)
        try:
            return open_picture(io.BytesIO(store.read(path, HEADER))).size
        except (ImageProblem, OSError):
            return super().size(file_name)

    def _stream(self, name: str) -> BinaryIO:
        store, path = self._at(name)
        return io.BytesIO(store.read(path))

    def _is_picture(self, name: str) -> bool:
        store, path = self._at(name)
        try:
            return bool(open_picture(io.BytesIO(store.read(path, HEADER))).size)
        except (ImageProblem, OSError):
            return False

    @abstractmethod
    def _at(self, name: str) -> tuple[Store, str]:
        """The store of a picture, and what it is called there."""


class StorePictures(_Remote):
    """The pictures below a URL, whose names are listed once; a web server lists none, so there a document's names are
    taken as they are. only: a single one of them. listed: whether names are looked up at all."""

    def __init__(self, url: str, only: str | None = None, listed: bool = True) -> None:
        super().__init__()
        self._store, self._only = Store(url), only
        self._listed = self._store.listable and listed
        if only is None:
            self._store.check()
        elif not self._store.is_file(only):
            raise ImageProblem(MISSING, only)

    def find(self, file_name: str) -> str:
        """See `ImageSource.find`."""
        if is_url(file_name) and file_name.startswith(self._store.url + "/"):
            file_name = file_name[len(self._store.url) + 1 :]
        name = clean_name(file_name)
        if self._only is None and not self._listed:
            return name
        if has_picture_ending(name) and name in self._stored:
            return name
        return super().find(file_name)

    @cached_property
    def _stored(self) -> frozenset[str]:
        return frozenset([self._only] if self._only is not None else self._store.names() if self._listed else ())

    def _list(self) -> Iterable[str]:
        return sorted(self._stored)

    def _stream(self, name: str) -> BinaryIO:
        try:
            return super()._stream(name)
        except FileNotFoundError:
            if name not in self._stored:
                raise
            raise ImageProblem(MISSING, f"{name}: was there when names were listed, and is gone") from None

    def _at(self, name: str) -> tuple[Store, str]:
        return self._store, name


class UrlPictures(_Remote):
    """Pictures whose names are their URLs, in whatever buckets."""

    def __init__(self) -> None:
        super().__init__()
        self._stores: dict[str, Store] = {}
        self._lock = threading.Lock()

    def find(self, file_name: str) -> str:
        """See `ImageSource.find`."""
        if not is_url(file_name):
            raise ImageProblem(MISSING, f"{file_name}: no URL, and --images is not given")
        return file_name

    def _list(self) -> Iterable[str]:
        return ()

    def _at(self, name: str) -> tuple[Store, str]:
        parts = urlsplit(name)
        root = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if root not in self._stores:
                self._stores[root] = Store(root)
        return self._stores[root], name[len(root) :].lstrip("/")
