"""Real crops to calibrate and check on: an even draw of boxes, cut as to label. Training's are `training.data`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.artifacts.contract import Contract
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.files import REGULAR, file_kind
from mal_trt.formats.boxes import Boxes, Source, as_boxes
from mal_trt.formats.images import ImageProblem, ImageSource, open_images
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame, make_frame, read_crop
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.hints import nothing_usable
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.summary import most_missing


@dataclass(frozen=True)
class Spot:
    """A drawn box. picture: its file in `images`. box: XYXY, clipped, picture pixels. record: as in the document."""

    images: str | Path
    picture: str
    width: int
    height: int
    box: tuple[float, float, float, float]
    size: SizeClass
    record: dict[str, Any]

    @property
    def truth(self) -> RLE | None:
        """The drawn mask, or None where the record has none that can be read."""
        try:
            return to_rle(self.record["segmentation"], self.height, self.width)
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True)
class CropBatch:
    """Crops of one size class: image [N,3,S,S] as the model takes it, and where each came from."""

    size: SizeClass
    image: np.ndarray
    frames: tuple[Frame, ...]
    spots: tuple[Spot, ...]


@dataclass
class Losses:
    """Boxes that gave no crop, by reason; `blank`: crops of one colour throughout."""

    unreadable: int = 0
    blank: int = 0
    reasons: list[str] = field(default_factory=list)


class TooFewBoxes(InputError):
    """Fewer usable boxes than crops were asked for. found, wanted: how many of each."""

    def __init__(self, found: int, wanted: int) -> None:
        super().__init__(
            f"{found} usable boxes, {wanted} wanted: give more pictures and boxes, or ask for fewer with --crops and "
            "--check-crops"
        )
        self.found, self.wanted = found, wanted


def source_files(sources: Sequence[Source]) -> list[Path]:
    """The files among pictures and boxes, which no result may take the place of; it may lie in a folder of them."""
    places = [place for images, boxes in sources for place in (images, getattr(boxes, "path", boxes))]
    return [Path(str(place)) for place in places if file_kind(str(place)) == REGULAR]


def draw(sources: Sequence[Source], count: int, warnings: list[str] | None = None) -> list[Spot]:
    """Up to `count` boxes of documents, as many small, medium and large as there are, spread over all pictures.

    sources: (pictures, boxes) of each document; pictures None where the boxes say it. The draw follows from the
    documents alone. warnings: gets a line for each document most of whose boxes cannot be used. InputError if a
    document cannot be used, NothingDone if no box of any can.
    """
    warnings = warnings if warnings is not None else []
    by_size: dict[SizeClass, list[Spot]] = {size: [] for size in SizeClass}
    # More than needed of each document, so that a class that one lacks can come from another.
    unusable: list[str] = []
    for images, boxes in sources:
        boxes = as_boxes(boxes)
        for size, spots in _document(images or boxes.home(), boxes, count, unusable, warnings).items():
            by_size[size].extend(spots)
    if not any(by_size.values()):
        raise NothingDone("; ".join(unusable))
    drawn: list[Spot] = []
    left = count
    for place, size in enumerate(sorted(by_size, key=lambda size: len(by_size[size]))):
        share = _spread(by_size[size], left // (len(by_size) - place))
        drawn.extend(share)
        left -= len(share)
    return drawn


def draw_both(
    sources: Sequence[Source],
    annotations: Source | None,
    parts: tuple[int, int],
    warnings: list[str],
) -> tuple[list[Spot], list[Spot]]:
    """Boxes to learn from, and others to check on: of `annotations`, with drawn masks, or of the same sources.

    parts: how many of each. warnings: see `draw`. TooFewBoxes; InputError if none has a mask.
    """
    wanted = parts[0] if annotations else sum(parts)
    drawn = draw(sources, wanted, warnings)
    if len(drawn) < wanted:
        raise TooFewBoxes(len(drawn), wanted)
    if annotations is None:
        return split(drawn, parts)
    held = [spot for spot in draw([annotations], parts[1], warnings) if spot.truth is not None]
    if not held:
        raise InputError(f"{annotations[1]}: no drawn mask to check on; leave --annotations out to compare masks")
    return drawn, held


def split(spots: Sequence[Spot], parts: tuple[int, int]) -> tuple[list[Spot], list[Spot]]:
    """Two disjoint parts of a draw in the given proportion, each spread over it."""
    first, second = parts
    places = {int(i * (first + second) / second) for i in range(len(spots))} if second else set()
    return [s for i, s in enumerate(spots) if i not in places], [s for i, s in enumerate(spots) if i in places]


def crops(
    spots: Sequence[Spot], contract: Contract, batch: int, losses: Losses | None = None, skip_blank: bool = False
) -> Iterator[CropBatch]:
    """The boxes' crops in batches of one size class, a picture decoded once for all its boxes.

    losses: counts the boxes that give no crop. skip_blank: leave out crops of a single colour, from which no range
    can be learnt.
    """
    losses = losses if losses is not None else Losses()
    waiting: dict[SizeClass, list[tuple[np.ndarray, Frame, Spot]]] = {size: [] for size in SizeClass}
    opened: dict[str | Path, ImageSource] = {}
    at: tuple[str | Path, str] | None = None
    pixels: np.ndarray | None = None
    for spot in sorted(spots, key=lambda spot: (str(spot.images), spot.picture)):
        if at != (spot.images, spot.picture):
            at = spot.images, spot.picture
            source = opened.setdefault(spot.images, open_images(spot.images))
            pixels = _load(source, spot, losses)
        if pixels is None:
            losses.unreadable += 1
            continue
        side = contract.side(spot.size)
        frame = make_frame(spot.box, spot.width, spot.height, side, contract.margin_rate)
        crop = read_crop(pixels, frame.extended, side).transpose(2, 0, 1)
        if skip_blank and crop.min() == crop.max():
            losses.blank += 1
            continue
        group = waiting[spot.size]
        group.append((crop, frame, spot))
        if len(group) == batch:
            yield _batch(spot.size, group, contract)
            group.clear()
    for size, group in waiting.items():
        if group:
            yield _batch(size, group, contract)


def _batch(size: SizeClass, group: Sequence[tuple[np.ndarray, Frame, Spot]], contract: Contract) -> CropBatch:
    image, frames, spots = zip(*group, strict=True)
    return CropBatch(size, np.stack(image).astype(contract.input_dtype), frames, spots)


def _load(source: ImageSource, spot: Spot, losses: Losses) -> np.ndarray | None:
    try:
        return source.load(spot.picture, (spot.width, spot.height))
    except ImageProblem as problem:
        losses.reasons.append(f"{spot.picture}: {problem}")
        return None


def _document(
    images: str | Path, boxes: Boxes, most: int, unusable: list[str], warnings: list[str]
) -> dict[SizeClass, list[Spot]]:
    """Of each size class of one document, up to `most` boxes, evenly spaced in the order of its pictures. unusable: why
    there is none. warnings: that there are few."""
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
        journal = Journal(Path(folder) / "plan")
        try:
            source = open_images(images)
            write_plan(journal, {}, boxes, None, source, 1)
            usable, skipped = journal.planned_boxes()[0], journal.skipped()
            if not usable:
                unusable.append(nothing_usable(journal, source, boxes, images, "used"))
            elif warning := most_missing(usable + sum(skipped.values()), skipped, f"of {boxes} cannot be used"):
                warnings.append(warning)
            found = {}
            for size in SizeClass:
                # With batches of one box, box.batch is the box's own and tells its size class.
                rows = journal.execute(
                    "SELECT place FROM box JOIN batch ON batch.number = box.batch WHERE batch.size=? ORDER BY place",
                    (int(size),),
                )
                places = _spread([place for (place,) in rows], most)
                found[size] = [_spot(journal, images, place, size) for place in places]
            return found
        finally:
            journal.close()


def _spot(journal: Journal, images: str | Path, place: int, size: SizeClass) -> Spot:
    name, width, height, x0, y0, x1, y1, record = journal.execute(
        "SELECT file_name, width, height, x0, y0, x1, y1, annotation.record FROM box "
        "JOIN image ON image.position = box.image JOIN annotation ON annotation.seq = box.seq WHERE place=?",
        (place,),
    ).fetchone()
    return Spot(images, name, width, height, (x0, y0, x1, y1), size, json.loads(record))


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """`most` of the values, evenly spaced; all if there are not more."""
    if len(values) <= most:
        return list(values)
    return [values[int(i * len(values) / most)] for i in range(most)]
