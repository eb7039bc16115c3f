"""Label Studio's labelling configurations and tasks, as far as boxes and masks go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.reading.xml_elements import parse_text

KINDS = {"BrushLabels": None, "PolygonLabels": 1.0}  # pixels that a polygon may be simplified by
RESULTS = ("annotations", "drafts", "predictions")


@dataclass(frozen=True)
class Config:
    """tags: names of the tag that masks go into, and of the picture's. data: the key of the task's data that has the
    picture. simplify: see `Options`; None for a brush. labels: those of that tag."""

    tags: tuple[str, str]
    data: str
    simplify: float | None
    labels: frozenset[str]


@dataclass(frozen=True)
class Rectangle:
    """A box of a task: XYXY in shares of the picture, 0 to 1, its labels, its id, and the picture's size if it is
    known."""

    box: tuple[float, float, float, float]
    labels: list[str]
    key: str
    size: tuple[int, int] | None


def read_config(text: Any) -> Config:
    """What a labelling configuration (XML) says; InputError if it has no tag for masks."""
    if not isinstance(text, str) or not text.strip():
        raise InputError("label_config: missing; expected the project's labelling configuration")
    root = parse_text(text, "label_config")
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    for kind, simplify in KINDS.items():
        for tag in root.iter(kind):
            to, name = tag.get("toName"), tag.get("name")
            if name and to in images and images[to].startswith("$"):
                labels = frozenset(label.get("value", "") for label in tag.iter("Label"))
                return Config((name, str(to)), images[to][1:], simplify, labels)
    raise InputError(
        'label_config: nowhere to put masks; add <BrushLabels name="mask" toName="image"> with the labels of the '
        "rectangles, or <PolygonLabels>"
    )


def rectangles(task: dict[str, Any], context: Any) -> Iterator[Rectangle]:
    """The boxes that masks are wanted for: those just drawn (the context), or else the task's own: of its annotations,
    drafts or predictions the first that has rectangles. Rotated ones are left out, but for those by half a turn."""
    drawn = context.get("result") if isinstance(context, dict) else None
    if drawn:
        yield from _of(drawn)
        return
    for kind in RESULTS:
        candidates = task.get(kind)
        if isinstance(candidates, dict):
            candidates = [candidates]
        for one in candidates if isinstance(candidates, list) else []:
            if isinstance(one, dict) and not one.get("was_cancelled"):
                found = list(_of(one.get("result")))
                if found:
                    yield from found
                    return


def _of(result: Any) -> Iterator[Rectangle]:
    for place, region in enumerate(result if isinstance(result, list) else []):
        value = region.get("value") if isinstance(region, dict) else None
        if not isinstance(value, dict) or not {"x", "y", "width", "height"} <= value.keys() or "points" in value:
            continue
        if region.get("type") not in ("rectanglelabels", "rectangle"):
            continue
        numbers = [value[side] for side in ("x", "y", "width", "height")]
        where = f"region {str(region.get('id', place))[:40]}"
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers):
            raise InputError(f"{where}: x, y, width and height are to be numbers")
        rotation = value.get("rotation") or 0
        if not isinstance(rotation, (int, float)) or rotation % 180:
            continue
        x, y, width, height = (v / 100 for v in numbers)
        if rotation % 360:  # by half a turn about its corner
            x, y = x - width, y - height
        if width <= 0 or height <= 0:
            raise InputError(f"{where}: no width or height")
        labels = value.get("rectanglelabels") or value.get("labels") or []
        named = [label for label in labels if isinstance(label, str)] if isinstance(labels, list) else []
        size = (region.get("original_width"), region.get("original_height"))
        known = all(isinstance(side, int) and 0 < side < 1 << 31 for side in size)
        key = str(region.get("id") or place)[:80]
        yield Rectangle(
            (x, y, x + width, y + height), named, key, (int(size[0] or 0), int(size[1] or 0)) if known else None
        )
