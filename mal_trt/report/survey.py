"""A first look at all objects of a report: what they are sorted, filtered and counted by. Nothing is drawn yet."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from mal_trt.geometry.boxes import SizeClass
from mal_trt.report.shown import LOWEST, REASONS, ShownPicture

MOST = 50_000  # objects that a report shows
NONE = -1  # for a score or an IoU that is not there; both are held in thousandths


class Survey:
    """Columns over all objects, in the order in which the content gives them.

    names: the classes, most frequent first. pictures: how many there are. order: the places of the objects that are
    shown, the lowest first of what they are sorted by. by: that, "iou" or "score"; nothing where no object has one.
    """

    def __init__(self, pictures: Iterable[ShownPicture], by: str, most: int = MOST) -> None:
        columns = {name: array("h") for name in ("size", "score", "iou", "edges", "parts", "border", "reasons")}
        kinds, found = array("l"), dict[str, int]()
        self.pictures = 0
        for picture in pictures:
            self.pictures += 1
            for shown in picture.objects:
                kinds.append(found.setdefault(shown.name, len(found)))
                row = (
                    *(shown.size, _thousandths(shown.score), _thousandths(shown.iou)),
                    *(shown.edges, min(shown.parts, 999)),
                    *(shown.at_border(picture.width, picture.height), shown.reasons),
                )
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(int(value))
        self._columns = {name: np.array(values, np.int64) for name, values in columns.items()}
        counts = np.bincount(np.array(kinds, np.int64), minlength=len(found))
        ranks = np.argsort(-counts, kind="stable")
        self.names = [list(found)[kind] for kind in ranks]
        scored = np.flatnonzero(self["score"] != NONE)
        lowest = scored[np.argsort(self["score"][scored], kind="stable")[: int(LOWEST * len(scored))]]
        self._columns["reasons"][lowest] |= 1
        self._columns["class"] = np.argsort(ranks)[np.array(kinds, np.int64)] if found else np.zeros(0, np.int64)
        self.by = by if np.any(self[by] >= 0) else ""
        self.order = self._chosen(most)

    def __len__(self) -> int:
        return len(self._columns["class"])

    def __getitem__(self, column: str) -> np.ndarray:
        """A column of all objects, int64 [n]."""
        return self._columns[column]

    def index(self) -> dict[str, Any]:
        """What the page must know of every object that is shown: columns in the order in which they are shown."""
        return {
            "count": len(self.order),
            "by": self.by,
            "classes": self.names,
            "reasons": list(REASONS),
            "columns": {name: values[self.order].tolist() for name, values in self._columns.items()},
        }

    def mean(self, column: str, where: np.ndarray | None = None) -> float | None:
        """Mean of the values that are there of a column of thousandths, 0 to 1."""
        values = self[column] if where is None else self[column][where]
        values = values[values != NONE]
        return float(values.mean()) / 1000 if len(values) else None

    def of_size(self, size: SizeClass) -> np.ndarray:
        """Which objects are of a size, bool [n]."""
        return np.asarray(self["size"] == size)

    def _chosen(self, most: int) -> np.ndarray:
        """All objects; of too many the lowest half, and others spread evenly up to the highest."""
        if self.by:
            values = self[self.by]
            order = np.argsort(np.where(values == NONE, 2000, values), kind="stable")
        else:
            order = np.arange(len(self))
        if len(order) <= most:
            return order
        low = most // 2
        return np.concatenate([order[:low], order[np.linspace(low, len(order) - 1, most - low).round().astype(int)]])


def _thousandths(value: float | None) -> int:
    return NONE if value is None else round(1000 * value)
