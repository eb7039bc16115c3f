"""The second pass: boxes are labelled again as the boxes of their own masks, for boxes that are drawn too large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mal_trt.geometry.boxes import SizeClass, size_class
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.masker import Mask, Masker, Picture, draw
from mal_trt.labelling.predictor import Predictor


def narrowed(boxes: np.ndarray, rles: Sequence[RLE]) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of masks within their own ones, XYXY float64 [n,4], and which differ from these, bool [n].

    boxes: float64 [n,4]. rles: COCO's compressed RLE of each box's mask. An empty mask leaves its box as it is.
    """
    from pycocotools import mask as coco

    if not rles:
        return boxes.copy(), np.zeros(0, bool)
    tight = coco.toBbox([{**rle, "counts": rle["counts"].encode("ascii")} for rle in rles])
    low = np.maximum(tight[:, :2], boxes[:, :2])
    high = np.minimum(tight[:, :2] + tight[:, 2:], boxes[:, 2:])
    # With slack a mask may stand beside its box.
    seen = (low < high).all(axis=1)
    found = np.where(seen[:, None], np.hstack([low, high]), boxes)
    return found, (found != boxes).any(axis=1)


def draw_again(
    predictor: Predictor,
    masker: Masker,
    pictures: Sequence[Picture],
    frames: Frames,
    masks: Sequence[Mask],
    picture: Sequence[int] | None = None,
    logits: bool = False,
) -> tuple[Frames, list[Mask]]:
    """The masks that `draw` gave for some boxes, drawn again in their own boxes, and the frames that these were made
    in. Where nothing is left the second time, or would change, the first mask stays. Arguments as of `draw`."""
    boxes, changed = narrowed(frames.box, [mask.rle for mask in masks])
    from_ = np.zeros(len(masks), np.int64) if picture is None else np.array(picture, np.int64)
    found, used = list(masks), frames.part(np.arange(len(masks)))
    sizes = np.array([size_class((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes.tolist()])
    for size in SizeClass:
        at = np.flatnonzero(changed & (sizes == size))
        if not len(at):
            continue
        own = predictor.frames(boxes[at], frames.sides[at])
        drawn = draw(masker, pictures, own, size, from_[at].tolist(), logits)
        kept = np.array([mask.area > 0 for mask in drawn])
        used.put(at[kept], own.part(kept))
        for place, mask in zip(at.tolist(), drawn, strict=True):
            if mask.area:
                found[place] = mask
    return used, found
