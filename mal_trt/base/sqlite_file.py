"""A SQLite file that one process holds at a time: how journals and caches are opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mal_trt.base.errors import InputError


def hold(path: Path, any_thread: bool = False, durable: bool = False) -> sqlite3.Connection:
    """Open the file, or make it, for this process alone; statements outside a BEGIN are kept at once.

    any_thread: threads may share the connection, if they take turns. durable: what is kept outlives a power failure;
    otherwise a killed process at least. sqlite3.OperationalError ("... locked") if another process holds it.
    """
    held = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=not any_thread)
    try:
        # One holder needs no shared memory file, so this works on network file systems too.
        held.execute("PRAGMA locking_mode=EXCLUSIVE")
        held.execute("PRAGMA journal_mode=WAL")
        held.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    except BaseException:
        held.close()
        raise
    return held


@contextmanager
def opening(path: Path, what: str, locked: str, elsewhere: str, anew: str) -> Iterator[None]:
    """SQLite's errors inside become InputError.

    what: what the file should be, "a journal of mal-trt". locked: who holds it, and what to do then. elsewhere, anew:
    what to do where it cannot be written, and where it is something else.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        why = locked if "locked" in str(error) else f"cannot be written ({error}); {elsewhere}"
        raise InputError(f"{path}: {why}") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: not {what} ({error}); {anew}") from None
