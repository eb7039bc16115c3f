"""What can be asked of the writers."""

from __future__ import annotations

from dataclasses import dataclass

from mal_trt.base.errors import InputError


@dataclass(frozen=True)
class Options:
    """box_area: `area` in COCO is the box's, as the reference implementations write it. simplify: polygons with fewer
    points, none further from the exact line than this many pixels; formats that hold either then hold polygons. iou:
    COCO records get the IoU of the mask with the drawn one, where there was one."""

    box_area: bool = False
    simplify: float | None = None
    iou: bool = False

    def __post_init__(self) -> None:
        if self.simplify is not None and not 0 <= self.simplify <= 1000:
            raise InputError(f"simplify {self.simplify}: expected a number of pixels from 0 to 1000")
