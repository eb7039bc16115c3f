"""What was read of the boxes, kept in the journal so that a resumed run can say it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mal_trt.labelling.journal import Journal


@dataclass(frozen=True)
class ReadReport:
    """title: the format, such as "a YOLO data set". renamed: pictures found under another name than the boxes give.
    notes: what was left aside while reading, and the plain cause of what looks wrong."""

    title: str
    boxes: int
    classes: int
    renamed: int = 0
    notes: tuple[str, ...] = ()

    def keep(self, journal: Journal) -> None:
        """Into the journal."""
        journal.insert("fact", [("told", json.dumps(asdict(self)))])

    @property
    def line(self) -> str:
        """For the summary."""
        return (
            f"read {self.boxes:,} box{_s(self.boxes, 'es')} "
            f"of {self.classes:,} class{_s(self.classes, 'es')} from {self.title}"
            + (f"; {self.renamed:,} picture{_s(self.renamed)} found under another name" if self.renamed else "")
        )


def _s(count: int, plural: str = "s") -> str:
    return "" if count == 1 else plural


def read_report(journal: Journal) -> ReadReport:
    """What was read when the journal was planned."""
    row = journal.execute("SELECT value FROM fact WHERE name='told'").fetchone()
    if row is None:
        return ReadReport("a document", 0, 0)
    content = json.loads(row[0])
    return ReadReport(**{**content, "notes": tuple(content["notes"])})
