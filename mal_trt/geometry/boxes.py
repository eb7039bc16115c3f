"""Boxes, their size classes and the pixels they cover.

Frame of every box here: XYXY, original picture pixels, origin top left, half-open, float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SMALL_AREA = 32.0**2
MEDIUM_AREA = 96.0**2
TEST_MARGIN_RATE = 0.6


class SizeClass(IntEnum):
    """COCO's size classes by box area: small <= 32^2 < medium <= 96^2 < large."""

    SMALL = 0
    MEDIUM = 1
    LARGE = 2


def size_class(area: float) -> SizeClass:
    """Size class of a box of `area` original square pixels, half-open on the low side."""
    if area <= SMALL_AREA:
        return SizeClass.SMALL
    return SizeClass.MEDIUM if area <= MEDIUM_AREA else SizeClass.LARGE


def extended_box(box: Sequence[float], margins: Sequence[float]) -> tuple[int, int, int, int]:
    """Box grown about its centre, in whole pixels; it may reach outside the picture.

    box: XYXY. margins: left, top, right, bottom, each a fraction of the half side.
    As in MAL: low sides floor, high sides ceil after adding one pixel.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    left, top, right, bottom = margins
    return (
        math.floor(cx - (cx - x0) * (1 + left)),
        math.floor(cy - (cy - y0) * (1 + top)),
        math.ceil(cx + (x1 - cx) * (1 + right) + 1),
        math.ceil(cy + (y1 - cy) * (1 + bottom) + 1),
    )


def inclusive_pixels(box: Sequence[float]) -> tuple[int, int, int, int]:
    """Pixels MAL counts as inside a box: XYXY half-open, the truncated far edge included.

    An integer box w wide covers w + 1 columns; a published quirk that label parity needs.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    return int(x0), int(y0), int(x1) + 1, int(y1) + 1


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """The part of an XYXY box inside a `width` x `height` picture; None if no area is left."""
    x0, y0, x1, y1 = (float(v) for v in box)
    x0, y0 = max(x0, 0.0), max(y0, 0.0)
    x1, y1 = min(x1, float(width)), min(y1, float(height))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def box_iou(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """IoU of two XYXY boxes; 0 if both are without area."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    union = areas - width * height
    return float(width * height / union) if union > 0 else 0.0
