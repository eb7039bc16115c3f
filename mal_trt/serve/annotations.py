"""One object of the page's work: its box, class and mask, and what was said of it. Where they are kept is `journal`."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, fields, replace
from typing import Any

MODEL, BRUSH, FILE = "model", "brush", "file"
NEW, ACCEPTED, REJECTED = "new", "accepted", "rejected"
SOURCES, STATES = (MODEL, BRUSH, FILE), (NEW, ACCEPTED, REJECTED)


@dataclass(frozen=True)
class Annotation:
    """An object in a picture.

    x0..y1: its box, picture pixels, clipped to the picture, half-open. category: number of its class in the workspace.
    threshold: probability above which a pixel is its own; None: the model's. source: who drew the mask: the model, a
    brush, or the file that the boxes came from. counts: the mask as compressed counts of COCO's RLE; None: not drawn
    yet. area: its pixels. score: see `geometry.quality.soft_iou`; None where no model drew it. state: whether somebody
    looked at it, and what was found. Its id is 0 until the journal gives it one.
    """

    id: int
    picture: int
    x0: float
    y0: float
    x1: float
    y1: float
    category: int
    threshold: float | None = None
    source: str = MODEL
    counts: str | None = None
    area: int | None = None
    score: float | None = None
    state: str = NEW

    @property
    def box(self) -> tuple[float, float, float, float]:
        """XYXY."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def undrawn(self) -> bool:
        """Whether the model has yet to draw its mask."""
        return self.counts is None

    def at(self, box: tuple[float, float, float, float]) -> Annotation:
        """A copy with another box and the same mask."""
        x0, y0, x1, y1 = box
        return replace(self, x0=x0, y0=y0, x1=x1, y1=y1)

    def masked(self, other: Annotation) -> Annotation:
        """A copy with the mask, threshold, source and score of another."""
        one = replace(self, threshold=other.threshold, source=other.source, score=other.score)
        return replace(one, counts=other.counts, area=other.area)

    def text(self) -> str:
        """As JSON, for the journal."""
        return json.dumps(astuple(self), separators=(",", ":"))


COLUMNS = tuple(field.name for field in fields(Annotation))


def from_text(text: str | None) -> Annotation | None:
    """The annotation that `Annotation.text` wrote; None for None."""
    return None if text is None else Annotation(*json.loads(text))


def shown(one: Annotation) -> dict[str, Any]:
    """As the page gets it."""
    return {
        "id": one.id,
        "box": list(one.box),
        "category": one.category,
        "threshold": one.threshold,
        "source": one.source,
        "counts": one.counts,
        "area": one.area,
        "score": one.score,
        "state": one.state,
    }
