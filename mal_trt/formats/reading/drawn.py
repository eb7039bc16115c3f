"""Masks drawn as pictures: the pixels of each object have a value or a colour of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mal_trt.base.files import open_regular
from mal_trt.formats.picture_problem import UNREADABLE, ImageProblem
from mal_trt.formats.pixels import read_values
from mal_trt.geometry.boxes import box_iou
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import RLE, encode_rle

INSIDE = 0.5  # least share of the pixels of number k that lie in the k-th box, if numbers are places
FITS = 0.25  # least IoU of a box with the one around a region's pixels


class Region(NamedTuple):
    """The pixels of one value. window: the box around them, XYXY, half-open. pixels: how many they are."""

    value: int
    window: tuple[int, int, int, int]
    pixels: int


def drawn_values(file: Path, void: int | None = None, void_colour: Sequence[int] = ()) -> np.ndarray:
    """The value of each pixel of a picture, int32 [H,W] as of `read_values`, void pixels 0. ImageProblem if it cannot
    be read."""
    try:
        with open_regular(file) as stream:
            values = read_values(stream)
    except OSError as error:
        raise ImageProblem(UNREADABLE, error.strerror or str(error)) from None
    if void is not None:
        values[values == void] = 0
    if void_colour:
        red, green, blue = void_colour
        values[values == red + (green << 8) + (blue << 16)] = 0
    return values


def regions_of(values: np.ndarray) -> list[Region]:
    """The regions of all values but 0, in the order of their values."""
    rows, columns = np.nonzero(values)
    order = np.argsort(found := values[rows, columns], kind="stable")
    rows, columns, found = rows[order], columns[order], found[order]
    starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]])) if found.size else np.empty(0, int)
    ends = [*starts[1:].tolist(), len(found)]
    regions = []
    for start, end in zip(starts.tolist(), ends, strict=True):
        x, y = columns[start:end], rows[start:end]
        window = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
        regions.append(Region(int(found[start]), window, end - start))
    return regions


def region_rle(values: np.ndarray, region: Region) -> RLE:
    """Compressed RLE of a region."""
    x0, y0, x1, y1 = region.window
    return encode_rle(LocalMask(x0, y0, values[y0:y1, x0:x1] == region.value), *values.shape)


def matched(values: np.ndarray, regions: list[Region], boxes: Sequence[Sequence[float] | None]) -> dict[int, Region]:
    """Regions by the places of the boxes (XYXY, or None) that they belong to.

    Where all values are places counted from 1, and at least half of the pixels of each lie in the box of that place,
    they are taken for places. Otherwise the region and the box that overlap best belong together, then the next best
    of those that are left, down to an IoU of a quarter.
    """
    if all(0 < one.value <= len(boxes) and _share(values, one, boxes[one.value - 1]) >= INSIDE for one in regions):
        return {one.value - 1: one for one in regions}
    pairs = sorted(
        (
            (-box_iou(one.window, box), place, number)
            for place, box in enumerate(boxes)
            if box is not None
            for number, one in enumerate(regions)
        )
    )
    chosen: dict[int, Region] = {}
    free = set(range(len(regions)))
    for negative, place, number in pairs:
        if -negative >= FITS and place not in chosen and number in free:
            chosen[place] = regions[number]
            free.remove(number)
    return chosen


def _share(values: np.ndarray, region: Region, box: Sequence[float] | None) -> float:
    """The share of a region's pixels that lie in a box, up to a pixel."""
    if box is None:
        return 0
    x0, y0 = (int(max(0, side - 1)) for side in box[:2])
    x1, y1 = (int(max(0, side + 1)) for side in box[2:])
    return np.count_nonzero(values[y0:y1, x0:x1] == region.value) / region.pixels
