"""The crop around one box: where it lies, its pixels, and where the box falls inside it.

The crop wraps around the picture's borders, and is resized with Pillow's antialiased bicubic filter,
exactly as MAL was trained and evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mal_trt.geometry.boxes import TEST_MARGIN_RATE, SizeClass, extended_box, inclusive_pixels, size_class

# With more source pixels the two passes of the resize run in bands, which bounds memory; 4 MB fit in a cache.
BAND_PIXELS = 1 << 20
REDUCTIONS = (8, 4, 2)  # by which a JPEG decoder can divide both sides


@dataclass(frozen=True)
class Frame:
    """Geometry of one crop.

    box: XYXY in original pixels. extended: XYXY whole pixels, may reach outside the picture.
    inner: XYXY of the resized crop's pixels (0..size) that a mask may hold: those of the box, grown by the slack if
    there is any; zero outside the picture.
    """

    box: tuple[float, float, float, float]
    extended: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]
    width: int
    height: int
    size: int

    @property
    def area(self) -> float:
        """Box area in original square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    @property
    def size_class(self) -> SizeClass:
        return size_class(self.area)


def make_frame(
    box: Sequence[float],
    width: int,
    height: int,
    size: int,
    margin_rate: float = TEST_MARGIN_RATE,
    slack: float = 0.0,
) -> Frame:
    """Geometry of the test-time crop of an XYXY box in a `width` x `height` picture.

    margin_rate is shared by opposite sides, so each side grows by half of it. slack: how far a mask may leave the box
    on each side, as a share of its width or height; at most a quarter of margin_rate.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    extended = extended_box((x0, y0, x1, y1), (margin_rate / 2,) * 4)
    reach = (x0, y0, x1, y1)
    if slack:
        dx, dy = (x1 - x0) * slack, (y1 - y0) * slack
        reach = (max(0.0, x0 - dx), max(0.0, y0 - dy), min(float(width), x1 + dx), min(float(height), y1 + dy))
    inner = inner_box(reach, extended, width, height, size)
    return Frame((x0, y0, x1, y1), extended, inner, width, height, size)


def inner_box(
    box: Sequence[float], extended: Sequence[int], width: int, height: int, size: int
) -> tuple[int, int, int, int]:
    """XYXY crop pixels that an XYXY box of a `width` x `height` picture covers in the crop of `extended`."""
    x0, y0, x1, y1 = inclusive_pixels(box)
    left, top, right, bottom = extended
    ix0, ix1 = resized_span(max(x0, 0) - left, min(x1, width) - left, right - left, size)
    iy0, iy1 = resized_span(max(y0, 0) - top, min(y1, height) - top, bottom - top, size)
    return ix0, iy0, ix1, iy1


def read_crop(picture: np.ndarray, extended: Sequence[int], size: int, by: int = 1) -> np.ndarray:
    """Pixels of an extended box, wrapped around the borders and resized.

    picture: uint8 [H,W,3] (or a mask, [H,W]). extended: XYXY whole pixels of the original picture. by: what the sides
    of `picture` were divided by when it was decoded. Returns uint8 [size,size,...].
    """
    x0, y0 = (side // by for side in extended[:2])
    x1, y1 = (-(-side // by) for side in extended[2:])
    across = extended[0] / by - x0, extended[2] / by - x0
    down = extended[1] / by - y0, extended[3] / by - y0
    if (x1 - x0) * (y1 - y0) <= BAND_PIXELS:
        return _resize(wrap(picture, x0, y0, x1, y1), size, size, across, down)
    # Rows come first and are kept in 8 bits, so bands of rows give the same bytes.
    step = max(1, BAND_PIXELS // (x1 - x0))
    bands = []
    for y in range(y0, y1, step):
        rows = min(step, y1 - y)
        bands.append(_resize(wrap(picture, x0, y, x1, y + rows), size, rows, across))
    return _resize(np.concatenate(bands), size, size, down=down)


def reduction(least: float, size: int, margin_rate: float = TEST_MARGIN_RATE) -> int:
    """The largest of 8, 4, 2 and 1 by which a picture's sides can be divided while each of its crops still covers at
    least `size` pixels a side, its size after the resize. least: shortest side of its boxes, pixels."""
    crop = least * (1 + margin_rate / 2)
    return next((by for by in REDUCTIONS if crop >= by * size), 1)


def reduced_by(picture: np.ndarray, width: int, height: int) -> int:
    """What the sides of a width x height picture were divided by (1, 2, 4 or 8) when `picture` was decoded."""
    shape = picture.shape[:2]
    return next((by for by in (1, *REDUCTIONS[::-1]) if shape == (-(-height // by), -(-width // by))), 1)


def wrap(picture: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """picture[y mod H, x mod W] for y0 <= y < y1, x0 <= x < x1; any trailing axes are kept."""
    height, width = picture.shape[:2]
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return picture[y0:y1, x0:x1]
    wrapped = np.empty((y1 - y0, x1 - x0, *picture.shape[2:]), picture.dtype)
    for rows, from_rows in _pieces(y0, y1, height):
        for columns, from_columns in _pieces(x0, x1, width):
            wrapped[rows, columns] = picture[from_rows, from_columns]
    return wrapped


def _pieces(start: int, stop: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of start..stop that lie within one repeat of 0..side: their place in the result, and in the source."""
    at = start
    while at < stop:
        source = at % side
        length = min(stop - at, side - source)
        yield slice(at - start, at - start + length), slice(source, source + length)
        at += length


def resize_line(line: np.ndarray, size: int) -> np.ndarray:
    """One line of a 0/1 mask (uint8 [n]) resized as the crop is; uint8 [size], still 0/1."""
    return _resize(line[None], size, 1).reshape(size)


def resized_span(first: int, last: int, length: int, size: int) -> tuple[int, int]:
    """Where a line of `length` pixels, 1 at first..last and else 0, is 1 after MAL's resize of its box mask to `size`
    pixels: first and last (exclusive), (0, 0) if nowhere.

    The filter is separable and rounds to 8 bits between passes, so one line stands for the whole mask.
    """
    line = np.zeros(length, np.uint8)
    line[max(first, 0) : max(last, 0)] = 1
    inside = np.flatnonzero(resize_line(line, size))
    return (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)


def _resize(
    pixels: np.ndarray,
    width: int,
    height: int,
    across: tuple[float, float] | None = None,
    down: tuple[float, float] | None = None,
) -> np.ndarray:
    """Pixels [H,W,...] as [height,width,...]. across, down: the columns and rows that are resized; None: all."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    left, right = across or (0, image.width)
    top, bottom = down or (0, image.height)
    # Along the rows, then along the columns, as MAL was trained: Pillow 13 turns that round for tall pixels.
    for size, box in (
        ((width, image.height), (left, 0, right, image.height)),
        ((width, height), (0, top, width, bottom)),
    ):
        if image.size != size or box != (0, 0, *size):
            image = image.resize(size, Image.Resampling.BICUBIC, box)
    return np.asarray(image)
