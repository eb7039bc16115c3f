"""A file of soft masks, one for each box, that a killed run goes on from. What draws them is `teacher`."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.facts import changed
from mal_trt.base.sqlite_file import hold, opening
from mal_trt.training.over_box import SIDE
from mal_trt.training.prior import Prior

FORMAT = "1"
AGAIN = "delete it to draw the masks anew, or give another --teacher-cache"
TABLES = """
CREATE TABLE fact(name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE mask(box BLOB PRIMARY KEY, mask BLOB, trust REAL) WITHOUT ROWID;
"""


class MaskCache:
    """Masks uint8 [64,64] over single boxes, with their trust, by the box's key; None where its picture is damaged.

    A SQLite file. facts: what all of its masks have in common, such as their teacher; a file that was begun with others
    is an InputError that says which. Only one process can hold it.
    """

    def __init__(self, path: Path, facts: Mapping[str, str]) -> None:
        self.path, new = path, not path.exists()
        taken = "another run is writing it; wait for its end, or give another --teacher-cache"
        with opening(path, "a file of soft masks, or a damaged one", locked=taken, elsewhere=AGAIN, anew=AGAIN):
            self._db = hold(path)
            try:
                if new or not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                    self._begin({"format": FORMAT, **facts})
                begun = dict(self._db.execute("SELECT name, value FROM fact").fetchall())
                if self._db.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("its pages do not fit together")
            except BaseException:
                self.close()
                raise
        if differ := changed(begun, {"format": FORMAT, **facts}):
            self.close()
            raise InputError(f"{path}: holds the masks of another teacher ({'; '.join(differ)}); {AGAIN}")

    def _begin(self, facts: Mapping[str, str]) -> None:
        self._db.execute("BEGIN")
        for statement in TABLES.split(";"):
            self._db.execute(statement)
        self._db.executemany("INSERT INTO fact VALUES(?,?)", facts.items())
        self._db.execute("COMMIT")

    def missing(self, keys: Iterable[bytes]) -> list[int]:
        """Places of the keys that have no mask yet."""
        held = {row[0] for row in self._db.execute("SELECT box FROM mask")}
        return [at for at, key in enumerate(keys) if key not in held]

    def add(self, masks: Mapping[bytes, Prior | None]) -> None:
        """Keep some masks, all or none of them; RunError if the file cannot be written."""
        rows = [
            (key, None, 0.0) if one is None else (key, zlib.compress(one.mask.tobytes(), 6), one.trust)
            for key, one in masks.items()
        ]
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO mask VALUES(?,?,?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunError(
                f"{self.path}: cannot be written ({error}); is the disk full? What it holds is kept: make room and "
                "run again"
            ) from error

    def read(self, keys: Iterable[bytes]) -> dict[int, Prior]:
        """The masks worth any trust, by their place among the keys."""
        found: dict[int, Prior] = {}
        try:
            for at, key in enumerate(keys):
                row = self._db.execute("SELECT mask, trust FROM mask WHERE box=? AND trust>0", (key,)).fetchone()
                if row is not None:
                    mask = np.frombuffer(zlib.decompress(row[0]), np.uint8).reshape(SIDE, SIDE)
                    found[at] = Prior(mask, float(row[1]))
        except (sqlite3.DatabaseError, zlib.error, ValueError) as error:
            self.close()
            raise InputError(f"{self.path}: is damaged ({error}); {AGAIN}") from None
        return found

    def close(self) -> None:
        """Let go of the file."""
        with suppress(sqlite3.Error):
            self._db.close()


def facts_text(facts: Mapping[str, object]) -> dict[str, str]:
    """Facts as a cache keeps them: texts."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
