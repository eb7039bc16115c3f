"""Planned boxes many at a time, as arrays: what the pipeline works through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mal_trt.geometry.boxes import SizeClass


class Planned(NamedTuple):
    """One picture of the plan, pixels. least: shortest side of all its boxes, with a result or without."""

    file_name: str
    width: int
    height: int
    least: float


@dataclass(frozen=True, eq=False)
class PlanChunk:
    """Boxes in the order of the plan.

    table: a `journal.Box` in each row, float64 [n,9], whose whole numbers are exact. pictures: those of the boxes, by
    position. batches: size class and boxes of those that the boxes are in, by number.
    """

    table: np.ndarray
    pictures: Mapping[int, Planned]
    batches: Mapping[int, tuple[SizeClass, int]]

    @staticmethod
    def of(
        rows: Sequence[Any], pictures: Mapping[int, Planned], batches: Mapping[int, tuple[SizeClass, int]]
    ) -> PlanChunk:
        """From rows as the journal holds them."""
        return PlanChunk(np.array(rows, np.float64).reshape(-1, 9), pictures, batches)

    @staticmethod
    def joined(chunks: Sequence[PlanChunk]) -> PlanChunk:
        """The boxes of several chunks, at least one, in the order of the plan."""
        table = np.concatenate([chunk.table for chunk in chunks])
        pictures = {position: one for chunk in chunks for position, one in chunk.pictures.items()}
        batches = {number: one for chunk in chunks for number, one in chunk.batches.items()}
        return PlanChunk(table[np.argsort(table[:, 0])], pictures, batches)

    def part(self, at: np.ndarray) -> PlanChunk:
        """Those at some places, bool [n], with their own pictures and batches alone."""
        table = self.table[at]
        pictures, batches = (np.unique(table[:, column].astype(np.int64)).tolist() for column in (2, 7))
        return PlanChunk(
            table,
            {position: self.pictures[position] for position in pictures},
            {number: self.batches[number] for number in batches},
        )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def place(self) -> np.ndarray:
        return self.table[:, 0].astype(np.int64)

    @property
    def seq(self) -> np.ndarray:
        return self.table[:, 1].astype(np.int64)

    @property
    def image(self) -> np.ndarray:
        return self.table[:, 2].astype(np.int64)

    @property
    def box(self) -> np.ndarray:
        """XYXY, float64 [n,4]."""
        return self.table[:, 3:7]

    @property
    def batch(self) -> np.ndarray:
        return self.table[:, 7].astype(np.int64)

    @property
    def slot(self) -> np.ndarray:
        return self.table[:, 8].astype(np.int64)
