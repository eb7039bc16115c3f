"""What a report is made of: objects on their pictures, figures, facts. How it becomes pages is `write`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

from mal_trt.report.shown import ShownPicture
from mal_trt.report.survey import Survey


class Card(NamedTuple):
    """A figure at the head of a report. note: a few words under it."""

    title: str
    value: str
    note: str = ""


@dataclass
class Content:
    """A report's content.

    layers: names of the masks that objects have. pictures: called as often as is needed, always the same. by: what
    objects are sorted by, "iou" or "score". cards, figures: at its head, and between that and the objects, made of a
    look at all of these. skipped: [{"id", "image_id", "reason", "detail"}]. facts: of the run, by name. notes: what
    should be known of it.
    """

    title: str
    subtitle: str | Callable[[Survey], str]
    layers: tuple[str, ...] = ()
    pictures: Callable[[], Iterator[ShownPicture]] = lambda: iter(())
    by: str = "score"
    cards: Callable[[Survey], list[Card]] = lambda survey: []
    figures: Callable[[Survey], list[Element]] = lambda survey: []
    skipped: Iterable[dict[str, Any]] = ()
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
