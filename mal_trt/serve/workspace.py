"""The work of `mal-trt serve`'s page: pictures, their objects, and every change of them, kept in one folder.

Reopened with the same pictures and boxes, it goes on where it was, whatever ended the server before.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import make_folder
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import place_key
from mal_trt.serve.annotations import ACCEPTED, NEW, Annotation
from mal_trt.serve.exporting import Exported, export
from mal_trt.serve.journal import Change, Journal
from mal_trt.serve.loading import load
from mal_trt.serve.picture_files import PictureFiles
from mal_trt.serve.pictures import source_of
from mal_trt.serve.settings import ServeSettings
from mal_trt.writers.options import Options

JOURNAL = "journal.sqlite"
EXPORTS = "exports"
KEPT_EXPORTS = 3
LONGEST_NAME = 200
UNSEEN, ALL = "unseen", "all"
SHOWN = (UNSEEN, ALL)
SORTS = ("folder", "quality")
_OPEN = "EXISTS (SELECT 1 FROM annotation WHERE picture=p.id AND gone=0 AND state='new')"
# Nobody has decided on an object in it; or it has none, and nobody has looked.
_UNSEEN = f"({_OPEN} OR (looked=0 AND NOT EXISTS (SELECT 1 FROM annotation WHERE picture=p.id AND gone=0)))"


class Workspace:
    """Open work; see this module's first line. Any number of threads may use it.

    folder: where it is kept. images, boxes: what it works on; None: only what is uploaded. most_pixels: of one
    picture. InputError if something cannot be used, or if the work was begun with other pictures or boxes.
    """

    def __init__(self, folder: Path, images: str | Path | None, boxes: Boxes | None, most_pixels: int) -> None:
        if images is None and boxes is not None:
            images = boxes.home()
        source, root = source_of(images)
        make_folder(folder)
        self.folder = folder
        self.journal = Journal(folder / JOURNAL)
        try:
            remembered_by = "none" if images is None else place_key(images)
            load(self.journal, remembered_by, boxes, source, root is not None, folder)
        except BaseException:
            self.journal.close()
            raise
        self.key = self.journal.key()
        self.name = Path(images).name if images is not None else folder.name
        self.files = PictureFiles(self.journal, source, root, folder, most_pixels)

    def close(self) -> None:
        """Let go of the journal; nothing waits to be written."""
        self.journal.close()

    # What there is

    def summary(self) -> dict[str, Any]:
        """Classes with their objects, and how far the work is."""
        execute, revision = self.journal.execute, self.journal.revision
        classes = execute(
            "SELECT number, name, (SELECT COUNT(*) FROM annotation WHERE category=number AND gone=0) FROM category "
            "ORDER BY number"
        )
        states = dict(execute("SELECT state, COUNT(*) FROM annotation WHERE gone=0 GROUP BY state"))
        (pictures,) = execute("SELECT COUNT(*) FROM picture")[0]
        (unseen,) = execute(f"SELECT COUNT(*) FROM picture AS p WHERE problem IS NULL AND {_UNSEEN}")[0]
        return {
            "name": self.name,
            "key": self.key,
            "revision": revision,
            "categories": [{"number": number, "name": name, "objects": count} for number, name, count in classes],
            "pictures": pictures,
            "unseen": unseen,
            "states": states,
            "undrawn": self.undrawn(),
            "notes": json.loads(self.journal.fact("notes") or "[]"),
        }

    def undrawn(self) -> int:
        """Objects whose masks the model has yet to draw, those of pictures that cannot be read left out."""
        return int(
            self.journal.execute(
                "SELECT COUNT(*) FROM annotation JOIN picture ON picture.id = annotation.picture "
                "WHERE counts IS NULL AND gone=0 AND problem IS NULL"
            )[0][0]
        )

    def next_undrawn(self) -> int | None:
        """The first picture with such an object."""
        rows = self.journal.execute(
            "SELECT picture.id FROM annotation JOIN picture ON picture.id = annotation.picture "
            "WHERE counts IS NULL AND gone=0 AND problem IS NULL ORDER BY annotation.picture LIMIT 1"
        )
        return int(rows[0][0]) if rows else None

    def set_problem(self, picture: int, problem: str) -> None:
        """A picture that cannot be used, found out later."""
        self.journal.execute("UPDATE picture SET problem=? WHERE id=?", (problem, picture))

    def order(self, shown: str = ALL, sort: str = "folder", search: str = "") -> list[int]:
        """The pictures to show, by their numbers. sort "quality": that with the worst mask nobody decided on first.
        search: a part of their names, in any case."""
        where = f"problem IS NULL AND {_UNSEEN}" if shown == UNSEEN else "1"
        worst = "(SELECT MIN(score) FROM annotation WHERE picture=p.id AND gone=0 AND state='new')"
        by = f"{worst} IS NULL, {worst}, id" if sort == "quality" else "id"
        rows = self.journal.execute(f"SELECT id, name FROM picture AS p WHERE {where} ORDER BY {by}")
        wanted = _caseless(search)
        return [id for id, name in rows if not search or wanted in _caseless(name)]

    def rows(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """What a list says of these pictures."""
        marks = ",".join("?" * len(ids))
        found = self.journal.execute(
            f"SELECT p.id, name, problem, {_UNSEEN}, COUNT(a.id), COALESCE(SUM(a.state='accepted'), 0), "
            "COALESCE(SUM(a.state='rejected'), 0), MIN(CASE WHEN a.state='new' THEN a.score END) FROM picture AS p "
            f"LEFT JOIN annotation AS a ON a.picture = p.id AND a.gone=0 WHERE p.id IN ({marks}) GROUP BY p.id",
            ids,
        )
        names = ("id", "name", "problem", "unseen", "objects", "accepted", "rejected", "worst")
        by_id = {row[0]: dict(zip(names, row, strict=True)) for row in found}
        return [{**by_id[id], "unseen": bool(by_id[id]["unseen"])} for id in ids if id in by_id]

    def annotation(self, id: int) -> Annotation:
        """One object; InputError if there is none, or no longer."""
        found = self.journal.annotation(id)
        if found is None:
            raise InputError(f"object {id}: there is none")
        return found

    def check_category(self, number: int) -> None:
        """InputError if there is no such class."""
        if not self.journal.execute("SELECT 1 FROM category WHERE number=?", (number,)):
            raise InputError(f"class {number}: there is none")

    # What people do

    def create(self, one: Annotation, token: str | None = None) -> int:
        """A new object; its id."""
        with self.journal.transaction():
            self.check_category(one.category)
            return self.journal.take(one.picture, "create", [Change(None, one)], token=token)[0]

    def change(
        self, id: int, what: str, changed: Callable[[Annotation], Annotation], token: str | None = None
    ) -> Annotation:
        """Change an object as it is now; nothing is kept of a change to the same."""
        with self.journal.transaction():
            before = self.annotation(id)
            after = changed(before)
            if after.category != before.category:
                self.check_category(after.category)
            if after != before:
                self.journal.take(before.picture, what, [Change(before, after)], token=token)
            return after

    def delete(self, id: int, token: str | None = None) -> Annotation:
        """Take an object away; what it was."""
        with self.journal.transaction():
            before = self.annotation(id)
            self.journal.take(before.picture, "delete", [Change(before, None)], token=token)
            return before

    def accept(self, picture: int, token: str | None = None) -> None:
        """Accept all objects of a picture that nobody decided on; the picture was looked at."""
        with self.journal.transaction():
            new = [one for one in self.journal.annotations(picture) if one.state == NEW]
            changes = [Change(one, replace(one, state=ACCEPTED)) for one in new]
            looked = self.files.row(picture).looked
            if changes or not looked:
                self.journal.take(picture, "accept", changes, looked=True, token=token)

    def add_category(self, name: str) -> int:
        """A class of that name, which may be there already; its number. InputError for no name."""
        name = _class_name(name)
        with self.journal.transaction():
            rows = self.journal.execute("SELECT number FROM category WHERE name=?", (name,))
            if rows:
                return int(rows[0][0])
            keys = [key for (key,) in self.journal.execute("SELECT key FROM category") if isinstance(key, int)]
            self.journal.insert("category", "key, name", [(max(keys, default=0) + 1, name)])
            return int(self.journal.execute("SELECT MAX(number) FROM category")[0][0])

    def rename_category(self, number: int, name: str) -> None:
        """Another name for a class; InputError if another class has it."""
        name = _class_name(name)
        with self.journal.transaction():
            self.check_category(number)
            if self.journal.execute("SELECT 1 FROM category WHERE name=? AND number != ?", (name, number)):
                raise InputError(f"class {name!r}: there is one already")
            self.journal.execute("UPDATE category SET name=? WHERE number=?", (name, number))

    def export(self, format: str, options: Options, accepted: bool = False) -> tuple[int, Exported]:
        """Write everything in a format; see `exporting.export`. The export's number, by which it is downloaded."""
        folder = self.folder / EXPORTS
        numbers = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
        for old in numbers[: -KEPT_EXPORTS + 1 or None] if len(numbers) >= KEPT_EXPORTS else ():
            shutil.rmtree(folder / str(old), ignore_errors=True)
        number = numbers[-1] + 1 if numbers else 1
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.name).strip(".") or "labels"
        return number, export(self.journal, folder / str(number), f"{stem}-{format}", format, options, accepted)

    def exported(self, number: int) -> Path:
        """The file of an export that is still there; InputError if there is none."""
        folder = self.folder / EXPORTS / str(number)
        files = [path for path in folder.glob("*") if path.is_file() and not path.name.startswith(".")]
        if not files:
            raise InputError(f"export {number}: not there any more; export again")
        return files[0]


def open_workspace(settings: ServeSettings) -> Workspace:
    """The work that a server is started with; see `Workspace`."""
    boxes = Boxes(settings.boxes, settings.boxes_format, settings.split) if settings.boxes is not None else None
    return Workspace(settings.workspace, settings.images, boxes, settings.limits.pixels)


def _caseless(text: str) -> str:
    """A text as it is compared: letters with their accents as one or as two, in one case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _class_name(name: str) -> str:
    plain = " ".join(name.split())
    if not plain or len(plain) > LONGEST_NAME or not plain.isprintable():
        raise InputError(f"class name: expected 1 to {LONGEST_NAME} characters that can be printed")
    return plain
