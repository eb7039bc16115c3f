"""JPEG by simplejpeg, where it is installed (extra `fast-jpeg`): Pillow's pixels in a third to two thirds of its time.

Both decode with libjpeg-turbo; Pillow copies what it decoded twice more. How pictures are read is `pixels`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, features


def read_jpeg(stream: BinaryIO, image: Image.Image, by: int = 1) -> np.ndarray | None:
    """Pixels of a colour JPEG, uint8 [H,W,3] RGB, both sides divided by `by` (1, 2, 4 or 8) and rounded up.

    stream: the file. image: what Pillow made of its header. None for whatever Pillow should read: other formats and
    modes, and what is damaged, of which Pillow says how.
    """
    if image.format != "JPEG" or image.mode != "RGB" or (decode := _decoder()) is None:
        return None
    width, height = (-(-side // by) for side in image.size)
    try:
        stream.seek(0)
        pixels: np.ndarray = decode(stream.read(), min_width=width, min_height=height)
    except (OSError, ValueError, MemoryError):
        return None
    return pixels if pixels.shape == (height, width, 3) else None


@cache
def _decoder() -> Callable[..., Any] | None:
    """None without simplejpeg, and where Pillow decodes by another library, whose pixels differ."""
    if not features.check("libjpeg_turbo"):
        return None
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    found: Callable[..., Any] = decode_jpeg
    return found
