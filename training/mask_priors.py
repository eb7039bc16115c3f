"""The masks of an earlier model as priors of a run (`train --priors`): what it drew for each training box."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from mal_trt.backends.choice import reference_backend
from mal_trt.formats.images import ImageProblem
from mal_trt.labelling.labeler import Labeler
from mal_trt.training.pictures import TrainingBoxes
from mal_trt.training.prior import save_priors

SIDE = 96  # of a stored mask, which covers exactly the box


def save_mask_priors(model: str | Path, boxes: TrainingBoxes, path: Path, device: str = "cpu") -> None:
    """Masks of all boxes, made as `label` makes them: `rows` int64 [n], `masks` uint8 [n,96,96] of 0..255, at `path`
    (.npz); `prior.load_priors` takes those that fit their boxes."""
    found: dict[int, np.ndarray] = {}
    with closing(Labeler(model, device, backend=reference_backend(model))) as labeler:
        for number in np.unique(boxes.picture):
            rows = np.flatnonzero(boxes.picture == number)
            try:
                pixels = boxes.pictures[number].read()
            except ImageProblem:
                continue
            for row, mask in zip(rows.tolist(), labeler(pixels, boxes.boxes[rows]).masks, strict=True):
                found[row] = _over_box(mask, boxes.boxes[row])
    save_priors(path, found)


def _over_box(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A picture's mask, bool [H,W], where an XYXY box is: uint8 [96,96]."""
    x0, y0, x1, y1 = (int(v) for v in (*np.floor(box[:2]), *np.ceil(box[2:])))
    part = mask[y0:y1, x0:x1].astype(np.uint8) * 255
    shrinks = min(part.shape) > SIDE
    scaled: np.ndarray = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return scaled
