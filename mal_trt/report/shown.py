"""An object as a report shows it, and the reasons to look at it. What else is on a report is `content`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mal_trt.geometry.boxes import SizeClass, size_class
from mal_trt.geometry.mask_stats import mask_stats
from mal_trt.geometry.rle import RLE

# Of its box, and parts, that a mask seldom has.
FILLS, LITTLE, MANY_PARTS, FEW_EDGES = 0.95, 0.3, 4, 1

# Reasons to look at a mask, in the order of their bits in the index. The first is relative to all others.
REASONS = (
    "score among the lowest tenth",
    "empty",
    f"fills its box (above {FILLS:.0%})",
    f"little of its box (below {LITTLE:.0%})",
    f"{MANY_PARTS} parts or more",
    "reaches one side of its box at most",
)
LOWEST = 0.1
MOST_OF = {"box_share": 1e6, "edges": 4, "parts": 1 << 31}  # what a label may say of its mask


@dataclass(frozen=True)
class Shown:
    """One object. key: its annotation id. box: XYXY, picture pixels. masks: one for each of the report's layers, None
    where it has none there. quality: as labels have it, see `geometry.quality`; score is None where no network said it.
    iou: of the first layer's mask and the second's, None without one.
    """

    key: Any
    name: str
    box: tuple[float, float, float, float]
    masks: tuple[RLE | None, ...]
    score: float | None = None
    iou: float | None = None
    box_share: float = 0.0
    edges: int = 0
    parts: int = 0

    @property
    def size(self) -> SizeClass:
        """By the area of its box."""
        x0, y0, x1, y1 = self.box
        return size_class((x1 - x0) * (y1 - y0))

    @property
    def reasons(self) -> int:
        """The bits of REASONS, but for the first, that are true of its first mask."""
        some = self.parts > 0
        found = (
            not some,
            self.box_share > FILLS,
            some and self.box_share < LITTLE,
            self.parts >= MANY_PARTS,
            some and self.edges <= FEW_EDGES,
        )
        return sum(2 << bit for bit, true in enumerate(found) if true)

    def at_border(self, width: int, height: int) -> bool:
        """Whether its box comes to the picture's border, within a pixel."""
        x0, y0, x1, y1 = self.box
        return x0 <= 1 or y0 <= 1 or x1 >= width - 1 or y1 >= height - 1


@dataclass(frozen=True)
class ShownPicture:
    """One picture with its objects, perhaps none. name: its file's. width, height: pixels."""

    name: str
    width: int
    height: int
    objects: list[Shown]


def quality_of(given: Any, rle: RLE, area: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    """The fields of `Shown` that tell of a mask: those of a label's `quality` if they can be true, else made here."""
    said = given if isinstance(given, dict) else {}
    found = {name: said.get(name) for name in MOST_OF}
    if not all(_within(value, MOST_OF[name]) for name, value in found.items()):
        with np.errstate(all="ignore"):  # a box that is beside its picture may have no area that a float holds
            (found,) = mask_stats([rle], [area], [box])
        found["box_share"] = found["box_share"] if math.isfinite(found["box_share"]) else 0.0
    score = said.get("score")
    return {**found, "score": score if _within(score, 1) else None}


def _within(value: Any, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
