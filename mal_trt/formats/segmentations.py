"""COCO's three ways to write a segmentation, read into one: compressed RLE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mal_trt.geometry.fill import painted
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import RLE, compress, encode_rle, run_lengths

# Lengths of the picture's longer side that a polygon may reach outside it, and pixels, as a document may say any size:
# pycocotools keeps every pixel along each edge, and crashes where they are more than its integers count.
FAR, FARTHEST = 100, 10_000_000
MOST_PIXELS = 1 << 32  # of a picture: pycocotools counts them in 32 bits, and crashes beyond


def to_rle(segmentation: Any, height: int, width: int) -> RLE:
    """Compressed RLE of polygons, an uncompressed or a compressed RLE of a height x width picture.

    Polygons are merged into one mask. ValueError says what is wrong with a segmentation that cannot be read.
    """
    from pycocotools import mask as coco

    if height * width >= MOST_PIXELS:
        raise ValueError(f"a mask of a picture of {width:,} x {height:,} pixels, more than masks can have")
    if isinstance(segmentation, list):
        check_polygons(segmentation)
        far = min(FAR * max(height, width, 1), FARTHEST)
        if any(abs(v) > far for part in segmentation for v in part):
            raise ValueError("a polygon reaches too far outside its picture")
        rle = coco.merge(coco.frPyObjects(segmentation, height, width))
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
    if isinstance(segmentation, dict):
        return compress(_checked_runs(segmentation, height, width), height, width)
    raise ValueError("segmentation is neither polygons nor RLE")


def check_polygons(segmentation: list[Any]) -> None:
    """ValueError unless these are COCO's polygons, one at least."""
    if not segmentation:
        raise ValueError("empty segmentation")
    if not all(_is_polygon(part) for part in segmentation):
        raise ValueError("a polygon is not a list of at least three x, y pairs of finite numbers")


def painted_rle(points: np.ndarray, height: int, width: int) -> RLE:
    """Compressed RLE of a YOLO polygon, [n,2] x, y in pixels, as the tools that train on such polygons fill it."""
    return encode_rle(LocalMask(0, 0, painted([points], height, width)), height, width)


def _is_polygon(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) >= 6
        and len(part) % 2 == 0
        and all(isinstance(v, (int, float)) and abs(v) < math.inf for v in part)
    )


def _checked_runs(rle: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Run lengths known to fill the picture: pycocotools itself does not check."""
    size = rle.get("size")
    if size != [height, width]:
        raise ValueError(f"RLE of size {size} for a picture of [{height}, {width}]")
    try:
        runs = run_lengths(rle)
    except (KeyError, OverflowError, TypeError, ValueError):
        raise ValueError("RLE counts cannot be read") from None
    if not runs.size or np.any(runs < 0) or int(runs.sum()) != height * width:
        raise ValueError("RLE counts do not add up to the picture's pixels")
    return runs
