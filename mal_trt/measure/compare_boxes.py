"""The boxes that `compare` compares on: all that `label` would plan, or some of them, spread evenly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from mal_trt.formats.segmentations import to_rle
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import category_names
from mal_trt.measure.agreement import BoxId, Truth

CUT = 8  # boxes of one picture cut in one go


@dataclass(frozen=True)
class PlannedBox:
    """A planned box. xyxy: clipped, picture pixels. record: the JSON of its annotation. name: of its class."""

    id: BoxId
    file_name: str
    width: int
    height: int
    xyxy: tuple[float, float, float, float]
    record: str
    name: str = ""

    def truth(self) -> Truth | None:
        """The drawn mask, by the rules of `evaluate`; None if the record has none that can be used."""
        record = json.loads(self.record)
        try:
            rle = to_rle(record.get("segmentation"), self.height, self.width)
        except ValueError:
            return None
        if not isinstance(record.get("category_id"), (int, str)):
            return None
        return Truth(rle, record["category_id"], record["bbox"][2] * record["bbox"][3])


class ComparedBoxes:
    """The boxes to compare on, in the order of the pictures. boxes: how many."""

    def __init__(self, journal: Journal, count: int | None, drawn: bool) -> None:
        self.drawn = drawn
        self._journal = journal
        self._names = category_names(journal)
        planned, _ = journal.planned_boxes()
        self.boxes = planned if count is None else min(count, planned)

    def any_truth(self) -> bool:
        """Whether some of the boxes has a drawn mask; looks no further than the first that has one."""
        return any(box.truth() is not None for box in self._rows())

    def pieces(self) -> Iterator[list[PlannedBox]]:
        """Up to CUT boxes of one picture at a time."""
        for _, boxes in groupby(self._rows(), lambda box: box.file_name):
            piece: list[PlannedBox] = []
            for box in boxes:
                piece.append(box)
                if len(piece) == CUT:
                    yield piece
                    piece = []
            if piece:
                yield piece

    def _rows(self) -> Iterator[PlannedBox]:
        for one in self._journal.spread(self.boxes):
            key = f"record {one.seq}" if one.id is None else one.id
            kind = self._names.get(one.category_id, "" if one.category_id is None else str(one.category_id))
            yield PlannedBox(key, one.file_name, one.width, one.height, one.xyxy, one.record, kind)
