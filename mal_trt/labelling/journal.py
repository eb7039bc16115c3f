"""The journal of a label run: a SQLite file beside the output that holds the plan and every finished box.

Everything a run must remember lies here and not in memory: the document's records, which box goes into which
batch, and the results. A batch's results arrive in one transaction, so whatever kills the run, the journal
holds whole batches; a resumed run asks it for the boxes without a result.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from mal_trt.base.errors import InputError, NothingDone, RunError
from mal_trt.base.facts import changed
from mal_trt.base.sqlite_file import hold, opening
from mal_trt.formats.ids import other_type
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.plan_chunk import PlanChunk, Planned

FORMAT = "3"
CHUNK = 1024  # rows a chunk of the plan holds
VALUES = 500  # in one statement; every SQLite takes 999

# Ids have no declared type: 7 and "7" stay different.
TABLES = """
CREATE TABLE fact(name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE part(position INTEGER PRIMARY KEY, key TEXT, value TEXT);
CREATE TABLE image(position INTEGER PRIMARY KEY, id, file_name TEXT, width INTEGER, height INTEGER,
                   reason TEXT, detail TEXT, record TEXT, least REAL);
CREATE TABLE category(id PRIMARY KEY);
CREATE TABLE annotation(seq INTEGER PRIMARY KEY, id, image_id, category_id, x REAL, y REAL, w REAL, h REAL,
                        record TEXT);
CREATE TABLE box(place INTEGER PRIMARY KEY, seq INTEGER, image INTEGER, x0 REAL, y0 REAL, x1 REAL, y1 REAL,
                 batch INTEGER, slot INTEGER);
CREATE TABLE batch(number INTEGER PRIMARY KEY, size INTEGER, boxes INTEGER);
CREATE TABLE result(seq INTEGER PRIMARY KEY ON CONFLICT REPLACE, rle TEXT, area INTEGER, reason TEXT, detail TEXT,
                    quality REAL);
"""


class Box(NamedTuple):
    """One planned box. place: its turn. seq: its place in the document. x0..y1: clipped, picture pixels."""

    place: int
    seq: int
    image: int
    x0: float
    y0: float
    x1: float
    y1: float
    batch: int
    slot: int


class Result(NamedTuple):
    """What became of one box: its RLE as JSON, its mask's area in pixels and quality, or why it was skipped."""

    seq: int
    rle: str | None
    area: int | None
    reason: str | None = None
    detail: str | None = None
    quality: float | None = None


class Journal:
    """An open journal; only one process can hold it. Plan and output read and write its rows with SQL."""

    def __init__(self, path: Path, goes_on: bool = False) -> None:
        """goes_on: a run can go on from it with --resume."""
        self.path, self._goes_on = path, goes_on
        self._columns: dict[str, int] = {}
        locked = "another run is writing it; wait for it or choose another --out"
        with opening(path, "a journal of mal-trt", locked, "choose another --out", "delete it to start over"):
            self._db = hold(path)
            self._db.create_function("other_type", 1, other_type, deterministic=True)

    @property
    def planned(self) -> bool:
        """Whether it holds a whole plan; a new one does not."""
        return bool(self.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])

    def create(self, facts: Mapping[str, str]) -> None:
        """Make the tables; `facts` are what a resumed run must have in common with this one."""
        for statement in TABLES.split(";"):
            self.execute(statement)
        self.insert("fact", [("format", FORMAT), ("facts", json.dumps(dict(facts)))])

    def check(self, facts: Mapping[str, str]) -> None:
        """InputError if the journal was begun by another version or with other facts, saying which."""
        if self.fact("format") != FORMAT:
            raise InputError(f"{self.path}: written by another version of mal-trt; delete it to start over")
        if differ := changed(json.loads(self.fact("facts") or "{}"), facts):
            raise InputError(
                f"{self.path}: cannot resume, this is another run ({'; '.join(differ)}); "
                "go on with what it was begun with, or delete it to start over"
            )

    @property
    def boxes(self) -> str:
        """The table of the boxes that are to be labelled now: `box`, or that of the second pass, `narrowed`."""
        return self.fact("boxes") or "box"

    @property
    def narrowed(self) -> bool:
        """Whether the second pass is planned."""
        return self.boxes != "box"

    def chunks(self) -> Iterator[PlanChunk]:
        """Planned boxes without a result, in the order of the plan, many at a time. Results may be added meanwhile."""
        place, boxes = -1, self.boxes
        while rows := self.execute(
            f"SELECT {boxes}.* FROM {boxes} LEFT JOIN result USING(seq) WHERE place > ? AND result.seq IS NULL "
            "ORDER BY place LIMIT ?",
            (place, CHUNK),
        ).fetchall():
            yield self.chunk(rows)
            place = rows[-1][0]

    def chunk(self, rows: Sequence[Any]) -> PlanChunk:
        """Rows of `box`, or of `narrowed`, with what the plan says of their pictures and batches."""
        pictures = self._among("SELECT position, file_name, width, height, least FROM image WHERE position", rows, 2)
        batches = self._among("SELECT number, size, boxes FROM batch WHERE number", rows, 7)
        return PlanChunk.of(
            rows,
            {position: Planned(*rest) for position, *rest in pictures},
            {number: (SizeClass(size), boxes) for number, size, boxes in batches},
        )

    def picture(self, image: int) -> tuple[str, int, int]:
        """File name, width and height, pixels, of a planned picture."""
        row = self.execute("SELECT file_name, width, height FROM image WHERE position=?", (image,)).fetchone()
        return str(row[0]), int(row[1]), int(row[2])

    def add(self, results: Iterable[Result]) -> None:
        """Record the outcome of whole batches, all of it or nothing; doing so twice is harmless."""
        with self.transaction():
            self.insert("result", results)

    def _among(self, select: str, rows: Sequence[Any], column: int) -> Iterator[Any]:
        """What a SELECT finds for the values that one column of some rows has."""
        wanted = list({row[column]: None for row in rows})
        for start in range(0, len(wanted), VALUES):
            part = wanted[start : start + VALUES]
            yield from self.execute(f"{select} IN ({','.join('?' * len(part))})", part)

    def count(self) -> tuple[int, int]:
        """(boxes labelled so far, records in the document)."""
        labelled = self.execute("SELECT COUNT(*) FROM result WHERE rle IS NOT NULL").fetchone()[0]
        return labelled, self.execute("SELECT COUNT(*) FROM annotation").fetchone()[0]

    def planned_boxes(self) -> tuple[int, int]:
        """(boxes in the plan, those among them without a result)."""
        row = self.execute(
            "SELECT COUNT(*), COUNT(*) - COUNT(result.seq) FROM box LEFT JOIN result USING(seq)"
        ).fetchone()
        return int(row[0]), int(row[1])

    def pictures(self) -> int:
        """Pictures with at least one labelled box."""
        found = self.execute(
            "SELECT COUNT(DISTINCT image) FROM box JOIN result USING(seq) WHERE rle IS NOT NULL"
        ).fetchone()
        return int(found[0])

    def skipped(self) -> dict[str, int]:
        """How many records were skipped, by reason, most frequent first."""
        return dict(
            self.execute(
                "SELECT reason, COUNT(*) FROM result WHERE reason IS NOT NULL GROUP BY reason ORDER BY 2 DESC, 1"
            ).fetchall()
        )

    def fact(self, name: str) -> str | None:
        """What was remembered by a name."""
        row = self.execute("SELECT value FROM fact WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def remember(self, name: str, value: str) -> None:
        """Keep a text by a name, instead of what was kept by it before."""
        self.execute("INSERT OR REPLACE INTO fact VALUES(?,?)", (name, value))

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self.guard():
            return self._db.execute(sql, values)

    def insert(self, table: str, rows: Iterable[Sequence[Any]], ignore: bool = False) -> None:
        """Insert rows that fill the table's columns in order. ignore: keep a row that is already there."""
        if table not in self._columns:
            self._columns[table] = len(self.execute(f"PRAGMA table_info({table})").fetchall())
        marks = ",".join("?" * self._columns[table])
        with self.guard():
            self._db.executemany(f"INSERT {'OR IGNORE ' * ignore}INTO {table} VALUES({marks})", rows)

    def update(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of many rows of values."""
        with self.guard():
            self._db.executemany(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside are kept, or none."""
        try:
            self.execute("BEGIN")
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise

    def close(self) -> None:
        # On a full disk this may fail; what was committed is in the files all the same.
        with suppress(sqlite3.Error):
            self._db.close()

    def delete(self) -> None:
        """Close and remove the journal."""
        self.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close the journal of a failed run, and remove it if there is nothing in it to go on from."""
        try:
            planned = self.planned
        except RunError:
            planned = True
        if planned:
            self.close()
        else:
            self.delete()

    @staticmethod
    @contextmanager
    def resumable(path: Path) -> Iterator[Journal]:
        """The journal of a run, which is gone when the run ends well, or with nothing to show."""
        journal = Journal(path, goes_on=True)
        try:
            yield journal
        except NothingDone:
            journal.delete()
            raise
        except BaseException:
            journal.abandon()
            raise
        journal.delete()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """SQLite's errors inside, those of reading rows too, become RunError."""
        try:
            yield
        except sqlite3.Error as error:
            if not self._goes_on:
                raise RunError(f"{self.path}: cannot be written ({error}); make room and run again") from error
            raise RunError(
                f"{self.path}: cannot write or read the journal ({error}); is the disk full? "
                "Nothing finished is lost: make room and run again with --resume"
            ) from error

    # What was planned, for other rooms

    def parts(self) -> list[tuple[str, str | None]]:
        """The document's keys with their values as JSON, in its order; None where the value is a list of records."""
        return self.execute("SELECT key, value FROM part ORDER BY position").fetchall()

    def images(self) -> Iterator[PlannedImage]:
        """The document's records of pictures, in its order."""
        columns = ", ".join(PlannedImage._fields)
        return map(PlannedImage._make, self.execute(f"SELECT {columns} FROM image ORDER BY position"))

    def planned_categories(self) -> list[Any]:
        """Ids of the classes that planned boxes have, None among them if some box has none."""
        rows = self.execute("SELECT DISTINCT category_id FROM annotation JOIN box USING(seq) ORDER BY 1")
        return [key for (key,) in rows]

    def last_id(self) -> int:
        """The largest id of an annotation that is a number, planned or not; 0 if there is none above."""
        (last,) = self.execute("SELECT MAX(id) FROM annotation WHERE typeof(id) = 'integer'").fetchone()
        return max(0, last or 0)

    def planned_pictures(self) -> int:
        """Pictures with at least one planned box."""
        return int(self.execute("SELECT COUNT(DISTINCT image) FROM box").fetchone()[0])

    def sizes(self) -> dict[SizeClass, int]:
        """How many planned boxes there are of each size class that has some, small ones first."""
        rows = self.execute("SELECT size, SUM(boxes) FROM batch GROUP BY size ORDER BY size")
        return {SizeClass(size): boxes for size, boxes in rows}

    def planned_records(self) -> Iterator[PlannedRecord]:
        """All planned boxes, in the order of the document."""
        return map(PlannedRecord._make, self.execute(f"{_RECORDS} ORDER BY annotation.seq"))

    def spread(self, count: int) -> Iterator[PlannedRecord]:
        """`count` of the planned boxes, spread evenly, in the order of the plan; all if there are not more."""
        planned, _ = self.planned_boxes()
        count, place = min(count, planned), -1
        while rows := self.execute(
            f"{_RECORDS} WHERE place > ? AND (place + 1) * ? / ? > place * ? / ? ORDER BY place LIMIT ?",
            (place, *(count, planned) * 2, CHUNK),
        ).fetchall():
            yield from map(PlannedRecord._make, rows)
            place = rows[-1][0]


class PlannedImage(NamedTuple):
    """A picture's record. reason, detail: why it cannot be used, if it cannot. record: JSON."""

    position: int
    file_name: str
    width: int | None
    height: int | None
    reason: str | None
    detail: str | None
    record: str


class PlannedRecord(NamedTuple):
    """A planned box with its annotation. id: as in the document. image: position of its picture, whose name and sides,
    pixels, follow. x0..y1: clipped, picture pixels. record: the annotation as JSON."""

    place: int
    seq: int
    id: Any
    category_id: Any
    image: int
    file_name: str
    width: int
    height: int
    x0: float
    y0: float
    x1: float
    y1: float
    record: str

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """The clipped box."""
        return self.x0, self.y0, self.x1, self.y1


_RECORDS = (
    "SELECT place, box.seq, annotation.id, category_id, box.image, file_name, width, height, x0, y0, x1, y1, "
    "annotation.record FROM box JOIN annotation ON annotation.seq = box.seq JOIN image ON image.position = box.image"
)
