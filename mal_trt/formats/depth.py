"""Pixels of more than 8 bits, or of floating point, brought down to 8 bits by how many of them a picture uses.

Cameras and scanners of 10, 12 or 14 bits store their values in 16 bits as they are. The high byte alone would be nearly
black.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16)
# Pillow's names for 16-bit colours in a file. It keeps their high byte, or the low one if told the other byte order.
OTHER_BYTE = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def is_deep_grey(image: Image.Image) -> bool:
    """Whether an image has one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def largest(values: np.ndarray) -> float:
    """The largest finite value, at least 0."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return max(0.0, float(values.max(initial=0)))


def to_8_bits(values: np.ndarray, most: float) -> np.ndarray:
    """Values 0 to 255, uint8, of values of whatever type; most: the largest of the whole picture.

    Floating point from 0 to 1 is multiplied by 255. All else is divided by a power of two: of 8, 10, 12, 14 or 16 bits
    the least that hold `most`, beyond 16 its own number, become 8. Negative values and NaN become 0.
    """
    if values.dtype.kind != "f":
        scaled = np.clip(values, 0, None) >> (_bits(most) - 8)
    else:
        positive = np.clip(np.nan_to_num(values, nan=0, posinf=most, neginf=0), 0, most)
        scaled = np.rint(positive * 255) if most <= 1 else positive * 2.0 ** (8 - _bits(most))
    small: np.ndarray = scaled.astype(np.uint8)
    return small


def _bits(most: float) -> int:
    needed = int(most).bit_length()
    return next((bits for bits in DEPTHS if needed <= bits), needed)


def low_byte_tiles(image: Image.Image) -> list[Any] | None:
    """The tiles by which Pillow would decode the low bytes of 16-bit colours, of an image that is not loaded yet and
    will have their high bytes; None for all other pictures."""
    tiles = getattr(image, "tile", [])
    return [_with_low_byte(tile) for tile in tiles] if tiles and all(map(_is_deep, tiles)) else None


def _is_deep(tile: Any) -> bool:
    return _unpacked(tile[3]) in OTHER_BYTE


def _unpacked(arguments: Any) -> str:
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _with_low_byte(tile: Any) -> Any:
    other = OTHER_BYTE[_unpacked(tile[3])]
    arguments = (other, *tile[3][1:]) if isinstance(tile[3], tuple) else other
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)  # Pillow 11 or before
