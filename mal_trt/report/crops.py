"""One object as a page shows it: the crop around it as a JPEG, its box and masks as lines on that crop."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle
from mal_trt.report.outline import HALVES, path_of
from mal_trt.report.shown import Shown

MARGIN = 0.2  # around what is shown, as a share of its longer side
LEAST_MARGIN = 8  # pixels
QUALITY = 78  # of the JPEGs

Window = tuple[int, int, int, int]  # x0, y0, x1, y1, whole pixels of the picture


class Crop(NamedTuple):
    """jpeg: the picture's pixels, None where there is no picture. lines: what is drawn on it."""

    jpeg: bytes | None
    lines: dict[str, Any]


def crop_of(pixels: np.ndarray | None, size: tuple[int, int], shown: Shown, side: int) -> Crop:
    """An object's crop.

    pixels: uint8 [H,W,3] RGB of the whole picture, None where it cannot be read. size: its (width, height). side: of
    the crop's longer side, pixels at most; nothing is enlarged. lines: {"view": [width, height], "box": [x, y, width,
    height], "masks": [path, ...], "zoom": crop pixels to one of the picture}, all in half pixels of the crop.
    """
    masks = [None if rle is None else decode_rle(rle) for rle in shown.masks]
    window = window_of(shown.box, [mask for mask in masks if mask is not None], *size)
    x0, y0, x1, y1 = window
    scale = min(1.0, side / max(x1 - x0, y1 - y0))
    small = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    fx, fy = small[0] / (x1 - x0), small[1] / (y1 - y0)
    left, top, right, bottom = shown.box
    corner = (left - x0) * fx, (top - y0) * fy
    box = [HALVES * value for value in (*corner, (right - left) * fx, (bottom - top) * fy)]
    lines = {
        "view": [HALVES * small[0], HALVES * small[1]],
        "box": [round(value, 1) for value in box],
        "masks": ["" if mask is None else path_of(_seen(mask, window, small)) for mask in masks],
        "zoom": round(scale, 3),
    }
    return Crop(None if pixels is None else _jpeg(pixels[y0:y1, x0:x1], small), lines)


def window_of(box: Sequence[float], masks: Sequence[LocalMask], width: int, height: int) -> Window:
    """What shows a box and its masks with some of what lies around them, inside the picture."""
    corners = [tuple(box)] + [
        (m.x0, m.y0, m.x0 + m.mask.shape[1], m.y0 + m.mask.shape[0]) for m in masks if m.mask.size
    ]
    x0, y0 = (min(corner[axis] for corner in corners) for axis in (0, 1))
    x1, y1 = (max(corner[axis] for corner in corners) for axis in (2, 3))
    margin = max(LEAST_MARGIN, MARGIN * max(x1 - x0, y1 - y0))
    first = [max(0, min(math.floor(low - margin), most - 1)) for low, most in ((x0, width), (y0, height))]
    last = [
        min(most, max(math.ceil(high + margin), low + 1))
        for high, most, low in ((x1, width, first[0]), (y1, height, first[1]))
    ]
    return first[0], first[1], last[0], last[1]


def _seen(mask: LocalMask, window: Window, size: tuple[int, int]) -> np.ndarray:
    """A mask in a window of the picture, resized: a pixel belongs to it where half of what it covers does."""
    x0, y0, x1, y1 = window
    canvas = np.zeros((y1 - y0, x1 - x0), np.uint8)
    rows, columns = mask.mask.shape
    canvas[mask.y0 - y0 : mask.y0 - y0 + rows, mask.x0 - x0 : mask.x0 - x0 + columns][mask.mask] = 255
    if canvas.shape[::-1] == size:
        return canvas > 127
    return np.asarray(Image.fromarray(canvas).resize(size, Image.Resampling.BOX)) > 127


def _jpeg(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()
