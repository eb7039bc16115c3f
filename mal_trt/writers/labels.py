"""A set of labels as the writers see it, wherever it comes from: pictures and their masks, read once and in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.mask_stats import mask_stats
from mal_trt.geometry.rle import RLE, decode_rle


class Category(NamedTuple):
    """A class of objects. key: its id in the document, None for objects without one. number: its place, from 0."""

    key: Any
    number: int
    name: str


@dataclass(frozen=True)
class ObjectChunk:
    """Objects that are read together: what is expensive to compute for one is computed for all, when it is needed."""

    rles: Sequence[RLE]
    areas: Sequence[int]
    boxes: Sequence[tuple[float, float, float, float]]

    @cached_property
    def marks(self) -> list[dict[str, Any]]:
        """See `geometry.mask_stats`."""
        return mask_stats(self.rles, self.areas, self.boxes)


@dataclass(frozen=True)
class Object:
    """One labelled box.

    record: its annotation, as it stood in the document. box: XYXY, clipped to the picture. rle: its mask, in the whole
    picture. area: the mask's pixels. quality: how sure the network is of it, None where no network was asked.
    """

    record: dict[str, Any]
    category: Category
    box: tuple[float, float, float, float]
    rle: RLE
    area: int
    quality: float | None = None
    chunk: ObjectChunk | None = None
    at: int = 0

    @property
    def marks(self) -> dict[str, Any] | None:
        """What helps to find the masks that should be looked at: `score`, see `geometry.quality.soft_iou`, and what
        `geometry.mask_stats` tells; of labels that are converted, what they say; or None."""
        if self.quality is None:
            before = self.record.get("quality")
            return before if isinstance(before, dict) else None
        chunk, at = self.chunk or ObjectChunk([self.rle], [self.area], [self.box]), self.at
        return {"score": self.quality, **chunk.marks[at]}

    @cached_property
    def local(self) -> LocalMask:
        """Its mask in its smallest window."""
        return decode_rle(self.rle)


@dataclass(frozen=True)
class Picture:
    """One picture and its labelled boxes, none where nothing is in it. name: its file's, with / between folders."""

    name: str
    width: int
    height: int
    objects: list[Object]


class LabelSet(Protocol):
    """Labels that can be read as often as is wanted; nothing but one picture's is held at once."""

    @property
    def categories(self) -> dict[Any, Category]:
        """Every class, by its id, in the document's order; those that it does not list come last."""
        ...

    def pictures(self) -> Iterator[Picture]:
        """Pictures with a mask, and those that are known to be empty; not those whose boxes were all skipped."""
        ...

    def objects(self) -> Iterator[Object]:
        """All objects in the order of the document."""
        ...

    def pieces(self) -> list[tuple[str, str | None]]:
        """The keys of the document with their values as JSON; None for `images` and `annotations`, whose records come
        one by one, and for a bare list, whose key is BARE_LIST."""
        ...

    def image_records(self) -> Iterator[str]:
        """The records of `images` as JSON."""
        ...
