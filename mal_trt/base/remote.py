"""Files at URLs, through fsspec: `s3://`, `gs://`, `abfs://`, `https://`, `memory://`. Local ones are `base.files`.

What fails for a moment (a 5xx answer, a timeout, a dropped connection) is tried again, longer and longer apart. What
still fails then ends the run, so that an outage never looks like pictures that are missing.
"""

from __future__ import annotations

import random
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.base.remote_problem import DENIED, EXISTS, MOMENT, REGION, judged

TRIES = 6
FIRST_WAIT = 0.5  # seconds before the second try; each further one waits twice as long
LONGEST_WAIT = 20.0

_MEANING = re.compile("[#?%]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Packages that bring a file system, where it is not the extra `cloud`.
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "adl": "adlfs"}

_T = TypeVar("_T")


def is_url(place: object) -> bool:
    """Whether a place is a URL rather than a path."""
    return _URL.match(str(place)) is not None


def as_place(text: str | Path) -> str | Path:
    """A URL as text, since `Path` makes `s3:/` of `s3://`; anything else as a path."""
    return str(text) if is_url(text) else Path(text)


def joined(url: str, name: str) -> str:
    """The URL of a name below a URL."""
    return f"{url.rstrip('/')}/{name}"


class Store:
    """The files below a URL; safe to use from several threads.

    FileNotFoundError and PermissionError of single files are raised as such. InputError if the place cannot be used at
    all, RunError if it cannot be reached, or no longer.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        self.scheme = url.partition("://")[0].lower()
        try:
            import fsspec.core
        except ModuleNotFoundError:
            raise RunError(f'{url}: needs fsspec; run: pip install "mal-trt[cloud]"') from None
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **_options(self.scheme))
        except ImportError as error:
            package = _PACKAGES.get(self.scheme)
            brings = f"pip install {package}" if package else 'pip install "mal-trt[cloud]"'
            raise RunError(f"{url}: needs another package ({one_line(error)}); run: {brings}") from None
        except ValueError as error:
            raise InputError(f"{url}: no such kind of URL ({one_line(error)})") from None
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1  # tried again here, where it can be told

    @property
    def listable(self) -> bool:
        """Whether it can tell the names of its files; web servers cannot."""
        return self.scheme not in ("http", "https")

    def path(self, name: str) -> str:
        """What the file system calls a name."""
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def read(self, name: str = "", most: int | None = None) -> bytes:
        """A file's content, or its first bytes."""
        part = {} if most is None else {"start": 0, "end": most}
        return bytes(self._spelled(name, lambda path: self._fs.cat_file(path, **part)))

    def is_file(self, name: str = "") -> bool:
        """Whether there is a file of that name."""
        try:
            return bool(self._spelled(name, self._fs.info)["type"] == "file")
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """Names of all files below, sorted."""
        root = self._fs._strip_protocol(self._root).rstrip("/") + "/"
        self._tried("", self._fs.invalidate_cache)
        found = self._tried("", lambda: self._fs.find(self._root))
        return sorted(path[len(root) :] for path in found if path.startswith(root))

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file here, whole."""
        part = file.with_name(f".{file.name}.part")
        try:
            self._spelled(name, lambda path: self._fs.get_file(path, str(part)))
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)

    def put(self, name: str, content: bytes, new: bool = False) -> None:
        """Write a file, which appears when it is whole. new: FileExistsError if there is one."""
        path = self.path(name)
        if new and self.is_file(name):
            raise FileExistsError(path)
        mode = {"mode": "create"} if new and self.scheme in ("s3", "memory") else {}
        self._tried(name, lambda: self._fs.pipe_file(path, content, **mode))
        self._fs.invalidate_cache()

    def send(self, file: Path, name: str) -> None:
        """Copy a file there, which appears when it is whole."""
        path = self.path(name)
        self._tried(name, lambda: self._fs.put_file(str(file), path))
        self._fs.invalidate_cache()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = self.path(name)
        with suppress(FileNotFoundError):
            self._tried(name, lambda: self._fs.rm_file(path))
        self._fs.invalidate_cache()

    def check(self) -> None:
        """InputError or RunError, in one line, if nothing can be read here."""
        try:
            if self.listable:
                self._tried("", lambda: self._fs.info(self._root))
        except FileNotFoundError:
            raise InputError(f"{self.url}: no such bucket, folder or file; check its name") from None
        except PermissionError:
            raise self.denied("") from None

    def denied(self, name: str) -> InputError:
        """What to say of a place that may not be read or written."""
        return InputError(
            f"{joined(self.url, name) if name else self.url}: access denied; check the credentials and what they allow "
            "(reading, listing, and writing for outputs)"
        )

    def _spelled(self, name: str, call: Callable[[str], _T]) -> _T:
        """`_tried` with the path of a name. For a web server # ? and % mean something: a name that has them may be
        a URL's own (`a.jpg?size=large`), and if there is none, that of a file."""
        path = self.path(name)
        try:
            return self._tried(name, lambda: call(path))
        except FileNotFoundError:
            quoted = urllib.parse.quote(name)
            if self.listable or not _MEANING.search(name):
                raise
            return self._tried(name, lambda: call(self.path(quoted)))

    def _tried(self, name: str, call: Callable[[], _T]) -> _T:
        where = joined(self.url, name) if name else self.url
        for wait in (*waits(), None):
            try:
                return call()
            except Exception as error:
                kind = judged(error)
                if kind == MOMENT and wait is not None:
                    time.sleep(wait)
                    continue
                if kind == MOMENT:
                    raise RunError(
                        f"{where}: cannot be reached ({one_line(error)}), tried {TRIES} times; "
                        "what is finished is kept, run again with --resume"
                    ) from None
                if kind == REGION:
                    raise InputError(
                        f"{where}: the bucket is in another region, or the credentials are of another place "
                        f"({one_line(error)}); set AWS_DEFAULT_REGION to the bucket's own"
                    ) from None
                if kind == DENIED:
                    raise PermissionError(13, one_line(error)) from None
                if kind == EXISTS:
                    raise FileExistsError(17, one_line(error)) from None
                if isinstance(error, FileNotFoundError):
                    raise FileNotFoundError(2, one_line(error)) from None
                raise RunError(f"{where}: {one_line(error)}") from None
        raise AssertionError


def waits() -> Iterator[float]:
    """Seconds between one try and the next, spread so that many workers do not come back at once."""
    for turn in range(TRIES - 1):
        yield min(LONGEST_WAIT, FIRST_WAIT * 2**turn) * random.uniform(0.5, 1.0)


def _options(scheme: str) -> dict[str, Any]:
    if scheme != "s3":
        return {}
    config = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30}
    return {"config_kwargs": config, "max_concurrency": 1}  # more would ask for each file's size before it is read
