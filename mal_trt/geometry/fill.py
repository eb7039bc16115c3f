"""Polygons back to masks, as the readers of their formats fill them. From masks to polygons: `geometry.polygons`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw


def even_odd(lines: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Pixels whose centres lie inside closed lines, by the even-odd rule: bool [height,width].

    lines: [n,2] each, x, y in pixels, a pixel's centre at halves. A centre on a line counts as inside on the left and
    upper side of what the line encloses.
    """
    toggles = np.zeros((height, width + 1), np.uint8)
    for line in lines:
        (x0, y0), (x1, y1) = line.T, np.concatenate([line[1:], line[:1]]).T
        low, high = np.minimum(y0, y1), np.maximum(y0, y1)
        first = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)  # rows whose centres the side crosses
        last = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64)
        count = last - first
        side = np.repeat(np.arange(len(line)), count)
        row = np.arange(len(side)) - np.repeat(np.cumsum(count) - count, count) + first[side]
        x = x0[side] + (row + 0.5 - y0[side]) * (x1[side] - x0[side]) / (y1[side] - y0[side])
        np.add.at(toggles, (row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    return (np.cumsum(toggles[:, :-1], axis=1, dtype=np.uint32) & 1).astype(bool)


def painted(lines: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """As `even_odd`, but points are first truncated to whole pixels, and the lines themselves count as inside.

    This is what OpenCV's fillPoly paints, and so what tools that train on YOLO polygons see.
    """
    whole = [np.trunc(line).astype(np.int64) for line in lines]
    canvas = Image.fromarray(even_odd([line + 0.5 for line in whole], height, width).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for line in whole:
        draw.line([*map(tuple, line.tolist()), tuple(line[0].tolist())], fill=1)
    return np.asarray(canvas).astype(bool)
