"""The journal of the page's work: a SQLite file in the workspace with every object, and every step that led there.

A step is on the disk before its answer is sent. Steps are only ever added: undoing one is a step, too.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, NamedTuple

from mal_trt.base.errors import InputError
from mal_trt.base.sqlite_file import hold, opening
from mal_trt.serve.annotations import COLUMNS, Annotation, from_text
from mal_trt.serve.answers import NotKept

FORMAT = "1"
UNDO, REDO = "undo", "redo"
TABLES = """
CREATE TABLE fact(name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE part(position INTEGER PRIMARY KEY, key TEXT, value TEXT);
CREATE TABLE category(number INTEGER PRIMARY KEY, key, name TEXT);
CREATE TABLE picture(id INTEGER PRIMARY KEY, upload INTEGER, name TEXT, stored TEXT, width INTEGER, height INTEGER,
                     problem TEXT, record TEXT, looked INTEGER DEFAULT 0);
CREATE UNIQUE INDEX picture_stored ON picture(upload, stored);
CREATE TABLE annotation(id INTEGER PRIMARY KEY, picture INTEGER, x0 REAL, y0 REAL, x1 REAL, y1 REAL, category INTEGER,
                        threshold REAL, source TEXT, counts TEXT, area INTEGER, score REAL, state TEXT,
                        record TEXT, gone INTEGER DEFAULT 0);
CREATE INDEX annotation_picture ON annotation(picture, gone, state, score);
CREATE INDEX annotation_undrawn ON annotation(picture) WHERE counts IS NULL AND gone = 0;
CREATE TABLE step(number INTEGER PRIMARY KEY, picture INTEGER, what TEXT, token TEXT UNIQUE, looked INTEGER,
                  before INTEGER);
CREATE INDEX step_picture ON step(picture, number);
CREATE TABLE change(step INTEGER, annotation INTEGER, before TEXT, after TEXT);
CREATE INDEX change_step ON change(step);
"""
_FIELDS = ", ".join(COLUMNS)
_SET = ", ".join(f"{name} = ?" for name in COLUMNS[1:])


class Change(NamedTuple):
    """What a step does to one object: None before: it is new; None after: it is deleted."""

    before: Annotation | None
    after: Annotation | None


class Journal:
    """An open journal; only one process can hold it, any number of its threads may use it.

    InputError if the file cannot be opened, is another server's, or is no such journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        other = "give another --workspace"
        locked = "another server works on it; stop it, or give another --workspace"
        with opening(path, "a journal of mal-trt serve", locked, other, other):
            self._db = hold(path, any_thread=True, durable=True)
            self.began = not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
            if self.began:
                self._db.execute("BEGIN EXCLUSIVE")
                for statement in TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO fact VALUES('format', ?)", (FORMAT,))
                self._db.execute("COMMIT")
            elif self.fact("format") != FORMAT:
                raise InputError(f"{path}: written by another version of mal-trt; {other}")

    def close(self) -> None:
        with self.lock, suppress(sqlite3.Error):
            self._db.close()

    # Rows

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of one statement. NotKept if the disk refuses."""
        with self.lock, self._guard():
            return self._db.execute(sql, values).fetchall()

    def insert(self, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows with values for these columns."""
        marks = ",".join("?" * (columns.count(",") + 1))
        with self.lock, self._guard():
            self._db.executemany(f"INSERT INTO {table}({columns}) VALUES({marks})", rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All inside is kept, or none of it; one inside another is a part of it."""
        with self.lock:
            if self._db.in_transaction:
                yield
                return
            try:
                self.execute("BEGIN")
                yield
                self.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    with suppress(sqlite3.Error):
                        self._db.rollback()
                raise

    def fact(self, name: str) -> str | None:
        """What was remembered by a name."""
        rows = self.execute("SELECT value FROM fact WHERE name=?", (name,))
        return rows[0][0] if rows else None

    def remember(self, name: str, value: str) -> None:
        """Keep a text by a name, instead of what was kept by it before."""
        self.execute("INSERT OR REPLACE INTO fact VALUES(?,?)", (name, value))

    @property
    def revision(self) -> int:
        """A number that grows with every change since the journal was opened."""
        with self._guard():
            return self._db.total_changes

    def key(self) -> str:
        """What tells this work from any other."""
        with self.transaction():
            if self.fact("key") is None:
                self.remember("key", secrets.token_hex(8))
            return str(self.fact("key"))

    def touched(self) -> bool:
        """Whether anybody has done anything in it yet: a step, an upload, a class."""
        signs = ("step", "picture WHERE upload=1", "category WHERE number > 1")
        return any(self.execute(f"SELECT 1 FROM {sign} LIMIT 1") for sign in signs)

    def empty(self) -> None:
        """Forget what the work is about, but not the facts."""
        for table in ("part", "category", "picture", "annotation"):
            self.execute(f"DELETE FROM {table}")
        self.execute("DELETE FROM fact WHERE name='notes'")

    # Objects

    def annotation(self, id: int) -> Annotation | None:
        """One object; None if there is none, or no longer."""
        rows = self.execute(f"SELECT {_FIELDS} FROM annotation WHERE id=? AND gone=0", (id,))
        return Annotation(*rows[0]) if rows else None

    def annotations(self, picture: int) -> list[Annotation]:
        """A picture's objects, in the order in which they came."""
        rows = self.execute(f"SELECT {_FIELDS} FROM annotation WHERE picture=? AND gone=0 ORDER BY id", (picture,))
        return [Annotation(*row) for row in rows]

    def start(self, rows: Iterable[tuple[Annotation, str]]) -> None:
        """Objects with their records as the document has them; they get the next ids in order."""
        (last,) = self.execute("SELECT COALESCE(MAX(id), 0) FROM annotation")[0]
        values = ((*astuple(replace(one, id=number)), record) for number, (one, record) in enumerate(rows, last + 1))
        self.insert("annotation", f"{_FIELDS}, record", values)

    def draw(self, drawn: Iterable[Annotation]) -> int:
        """Keep masks that the model drew; not those of boxes that changed meanwhile. How many were kept."""
        kept = 0
        with self.transaction():
            for one in drawn:
                now = self.annotation(one.id)
                if now is not None and now.undrawn and (now.box, now.threshold) == (one.box, one.threshold):
                    self._put(replace(now, counts=one.counts, area=one.area, score=one.score, source=one.source))
                    kept += 1
        return kept

    # Steps

    def taken(self, token: str | None) -> bool:
        """Whether the step of that token has been taken: its answer may have been lost, and it is asked for again."""
        return self.step_of(token) is not None

    def step_of(self, token: str | None) -> tuple[int, list[int]] | None:
        """The picture of the step of that token, and its objects; None if it was not taken."""
        steps = self.execute("SELECT number, picture FROM step WHERE token=?", (token,)) if token is not None else []
        if not steps:
            return None
        ((number, picture),) = steps
        ids = self.execute("SELECT annotation FROM change WHERE step=? ORDER BY rowid", (number,))
        return picture, [id for (id,) in ids]

    def take(
        self, picture: int, what: str, changes: Iterable[Change], looked: bool | None = None, token: str | None = None
    ) -> list[int]:
        """Take a step: change objects of one picture, and whether it was looked at. The ids of the objects, new ones'
        too. A step whose token was taken meanwhile is not taken again."""
        ids = []
        with self.transaction():
            if (before_this := self.step_of(token)) is not None:
                return before_this[1]
            before = self._looked(picture)
            number = self._step(picture, what, token, looked, before)
            for old, new in changes:
                if old is None and new is not None and not new.id:
                    (last,) = self.execute("SELECT COALESCE(MAX(id), 0) FROM annotation")[0]
                    new = replace(new, id=last + 1)
                self._change(number, old, new)
                ids.append((new or old).id)  # type: ignore[union-attr]
            if looked is not None:
                self.execute("UPDATE picture SET looked=? WHERE id=?", (looked, picture))
        return ids

    def last_step(self, picture: int) -> int:
        """The number of the last step in a picture; 0 if there is none."""
        return int(self.execute("SELECT COALESCE(MAX(number), 0) FROM step WHERE picture=?", (picture,))[0][0])

    def history(self, picture: int) -> tuple[list[int], list[int]]:
        """Steps of a picture that can be undone and redone, the next ones last."""
        done: list[int] = []
        undone: list[int] = []
        for number, what in self.execute("SELECT number, what FROM step WHERE picture=? ORDER BY number", (picture,)):
            if what == UNDO:
                undone.append(done.pop())
            elif what == REDO:
                done.append(undone.pop())
            else:
                done.append(number)
                undone.clear()
        return done, undone

    def undo(self, picture: int, token: str | None = None) -> bool:
        """Take the last step of a picture back; whether there was one."""
        return self._again(picture, UNDO, token)

    def redo(self, picture: int, token: str | None = None) -> bool:
        """Take the last step that was undone once more; whether there was one."""
        return self._again(picture, REDO, token)

    def _again(self, picture: int, what: str, token: str | None) -> bool:
        with self.transaction():
            if self.taken(token):
                return True
            done, undone = self.history(picture)
            steps = done if what == UNDO else undone
            if not steps:
                return False
            number = steps[-1]
            looked, before = self.execute("SELECT looked, before FROM step WHERE number=?", (number,))[0]
            changes = [
                Change(from_text(old), from_text(new))
                for old, new in self.execute("SELECT before, after FROM change WHERE step=? ORDER BY rowid", (number,))
            ]
            own = self._step(picture, what, token, None, None)
            for change in reversed(changes) if what == UNDO else changes:
                self._change(own, *(reversed(change) if what == UNDO else change))
            if looked is not None:
                self.execute("UPDATE picture SET looked=? WHERE id=?", (before if what == UNDO else looked, picture))
        return True

    def _step(self, picture: int, what: str, token: str | None, looked: bool | None, before: int | None) -> int:
        values = (picture, what, token, looked, before)
        self.execute("INSERT INTO step(picture, what, token, looked, before) VALUES(?,?,?,?,?)", values)
        return int(self.execute("SELECT last_insert_rowid()")[0][0])

    def _change(self, step: int, before: Annotation | None, after: Annotation | None) -> None:
        one = after or before
        assert one is not None
        texts = (before.text() if before else None, after.text() if after else None)
        self.execute("INSERT INTO change VALUES(?,?,?,?)", (step, one.id, *texts))
        if after is None:
            self.execute("UPDATE annotation SET gone=1 WHERE id=?", (one.id,))
        else:
            self._put(after)

    def _put(self, one: Annotation) -> None:
        """The row of an object; that of a deleted one is there, and comes back."""
        values = astuple(one)
        if self.execute("SELECT 1 FROM annotation WHERE id=?", (one.id,)):
            self.execute(f"UPDATE annotation SET {_SET}, gone=0 WHERE id=?", (*values[1:], one.id))
        else:
            self.insert("annotation", _FIELDS, [values])

    def _looked(self, picture: int) -> int:
        rows = self.execute("SELECT looked FROM picture WHERE id=?", (picture,))
        return int(rows[0][0]) if rows else 0

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise NotKept(
                f"{self.path}: cannot be written or read ({error}); is the disk full? What was answered is kept"
            ) from error
