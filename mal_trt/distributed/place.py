"""Where shards are kept: a folder, or a URL. A file appears there when it is whole."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import make_folder, replaced, write_whole
from mal_trt.base.remote import Store, is_url

LOCK = "_running.json"
BEAT = 20.0  # seconds between signs of life
STALE = 120.0  # seconds without one after which a run counts as dead
_HELD: set[str] = set()  # runs of this process


class Place:
    """A folder or a URL for outputs, made if it is not there. RunError if it cannot be written, or read."""

    def __init__(self, out: str | Path, make: bool = True) -> None:
        place = str(out).removeprefix("file://")
        self.out = place.rstrip("/") or place[:1]
        self._store = Store(self.out) if is_url(self.out) else None
        self._folder = Path(self.out)
        if make and self._store is None:
            make_folder(self._folder)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._store.is_file(name) if self._store else (self._folder / name).is_file()

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        try:
            return self._store.read(name) if self._store else (self._folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"{self.out}/{name}: cannot be read ({error.strerror or error})") from None

    def names(self) -> list[str]:
        """Names of all files."""
        if self._store:
            return self._store.names()
        return sorted(file.name for file in self._folder.iterdir() if file.is_file()) if self._folder.is_dir() else []

    def put(self, name: str, content: bytes, new: bool = False) -> None:
        """Write a file. new: FileExistsError if there is one."""
        try:
            if self._store:
                self._store.put(name, content, new)
            elif new:
                part = self._folder / f".{name}.{uuid.uuid4().hex}.part"
                try:
                    part.write_bytes(content)
                    os.link(part, self._folder / name)
                finally:
                    part.unlink(missing_ok=True)
            else:
                write_whole(self._folder / name, content)
        except FileExistsError:
            raise
        except PermissionError as error:
            raise InputError(f"{self.out}: access denied ({error.strerror or error}); choose another --out") from None
        except OSError as error:
            raise RunError(f"{self.out}/{name}: cannot be written ({error.strerror or error})") from None

    def send(self, file: Path, name: str) -> None:
        """Move a file there; one of that name is replaced."""
        try:
            if self._store:
                self._store.send(file, name)
                return
            # Into the folder first: a rename is one step on one disk only.
            with replaced(self._folder / name) as part:
                shutil.copyfile(file, part)
        except OSError as error:
            raise RunError(f"{self.out}/{name}: cannot be written ({error.strerror or error})") from None

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file here; RunError if it cannot be."""
        try:
            if self._store:
                self._store.fetch(name, file)
            else:
                shutil.copyfile(self._folder / name, file)
        except OSError as error:
            raise RunError(f"{self.out}/{name}: cannot be copied to {file} ({error.strerror or error})") from None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self._store:
            self._store.remove(name)
        else:
            (self._folder / name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what processes that died have left half-written; only where no process writes any more."""
        for file in self._folder.glob(".part-*.part*") if self._store is None else ():
            file.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only one run at a time writes here. InputError if another one does, or seemed to two minutes ago."""
        mine: dict[str, Any] = {"run": uuid.uuid4().hex, "host": socket.gethostname(), "process": os.getpid()}
        _HELD.add(mine["run"])
        try:
            self._take(mine)
        except BaseException:
            _HELD.discard(mine["run"])
            raise
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT):
                with suppress(RunError, InputError):
                    self.put(LOCK, _sign(mine))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            _HELD.discard(mine["run"])
            with suppress(RunError, OSError):
                self.remove(LOCK)

    def _take(self, mine: dict[str, Any]) -> None:
        try:
            self.put(LOCK, _sign(mine), new=True)
            return
        except FileExistsError:
            pass
        other = _read_sign(self.read(LOCK))
        age = time.time() - float(other.get("at", 0))
        # In a container that was started again the dead run may have had this very number.
        ours = other.get("process") == mine["process"] and other.get("run") not in _HELD
        gone = other.get("host") == mine["host"] and (ours or not _alive(other.get("process")))
        if age < STALE and not gone:
            raise InputError(
                f"{self.out}: another run is writing here (host {other.get('host')}, process {other.get('process')}, "
                f"last sign {max(0, age):.0f} s ago); wait for it, or choose another --out"
            )
        self.put(LOCK, _sign(mine))
        time.sleep(0.2)
        if _read_sign(self.read(LOCK)).get("run") != mine["run"]:
            raise InputError(f"{self.out}: another run began here at the same moment; wait for it")


def _sign(mine: dict[str, Any]) -> bytes:
    return json.dumps({**mine, "at": time.time()}).encode()


def _read_sign(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _alive(process: Any) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except OSError:
        return True
    return True
