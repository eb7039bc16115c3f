"""One run at a time in a folder: a second one would write over the checkpoints and mix its figures into the logs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mal_trt.base.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where nothing is checked
    fcntl = None  # type: ignore[assignment]

NAME = ".training"
TAKEN = (errno.EACCES, errno.EAGAIN)
_held: set[Path] = set()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is there; InputError if another process trains into it.

    The lock goes with this process, however it ends, and not with those that it forked. Where the disk knows no locks,
    nothing is checked of other processes.
    """
    path = folder.resolve() / NAME
    taken = InputError(f"{folder}: another run is training into it; wait for its end or choose another --out")
    if path in _held:  # such locks are between processes alone
        raise taken
    try:
        file = _locked(path)
    except OSError as error:
        if error.errno in TAKEN:
            raise taken from None
        file = None  # a full disk, which the checkpoint will tell of, or one without locks
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        if file is not None:
            with suppress(OSError):
                path.unlink()
            file.close()


def _locked(path: Path) -> BinaryIO:
    """The file, opened and locked; OSError if that cannot be."""
    while True:
        file = path.open("wb")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder removed it meanwhile
