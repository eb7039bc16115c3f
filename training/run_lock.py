"""One run at a time in a folder: a second one would write over the checkpoints and mix its figures into the logs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mal_trt.base.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where nothing is checked
    fcntl = None  # type: ignore[assignment]

NAME = ".training"
TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is there; InputError if another process trains into it.

    The lock goes with this process, however it ends, and not with those that it forked. Where the disk knows no locks,
    nothing is checked.
    """
    path = folder / NAME
    try:
        file = path.open("wb")
    except OSError:  # a full disk, which the checkpoint will tell of
        yield
        return
    with file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                raise InputError(
                    f"{folder}: another run is training into it; wait for its end or choose another --out"
                ) from None
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
