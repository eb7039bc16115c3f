"""GrabCut masks as a starting target: what colour alone says about each training box, computed once.

Box-supervised methods have long used GrabCut this way (BoxSup arXiv 1503.01640, SDI arXiv 1603.07485). No human
mask is involved. Not part of published MAL; used for the bundled model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mal_trt.formats.images import ImageProblem
from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.training.pictures import TrainingBoxes

# Side of a stored prior, which covers exactly the box; crop side and context margins of the runs averaged.
PRIOR_SIZE = 48
CROP_SIZE = 112
MARGIN_RATES = (0.6, 1.0)
ITERATIONS = 4
# Below this box side (pixels) colour models have too little to go on, and the box itself is the safer guess.
MIN_SIDE = 32
# A trusted prior spans this share of both box sides and fills the box by this much.
MIN_REACH = 0.85
FILL = (0.15, 0.95)


@dataclass(frozen=True)
class Prior:
    """A soft mask over one box, uint8 [n,n] of 0..255, and how far it may be trusted, 0..1."""

    mask: np.ndarray
    trust: float


def grabcut_prior(picture: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Mean of GrabCut runs with two amounts of context; uint8 [48,48] of 0..255 over the box, None if too small.

    picture: uint8 [H,W,3] RGB. box: XYXY original pixels.
    """
    if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return None
    masks = [_grabcut(picture, box, rate) for rate in MARGIN_RATES]
    mean: np.ndarray = np.mean(masks, 0)
    return np.round(mean * 255).astype(np.uint8)


def _grabcut(picture: np.ndarray, box: np.ndarray, margin_rate: float) -> np.ndarray:
    frame = make_frame(box.tolist(), picture.shape[1], picture.shape[0], CROP_SIZE, margin_rate)
    x0, y0, x1, y1 = frame.inner
    labels = np.full((CROP_SIZE, CROP_SIZE), cv2.GC_BGD, np.uint8)
    labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
    if (labels == cv2.GC_BGD).any():
        crop = read_crop(picture, frame.extended, CROP_SIZE)
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(crop, labels, (0, 0, 1, 1), *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    inside = (labels == cv2.GC_PR_FGD)[y0:y1, x0:x1].astype(np.float32)
    return np.asarray(Image.fromarray(inside).resize((PRIOR_SIZE, PRIOR_SIZE), Image.Resampling.BOX))


def compute_priors(boxes: TrainingBoxes, rows: np.ndarray, path: Path, workers: int = 2) -> None:
    """Priors of the given rows, stored at `path` (.npz): `rows` int64 [n], `masks` uint8 [n,48,48]."""
    order = rows[np.argsort(boxes.picture[rows], kind="stable")]
    cv2.setNumThreads(1)
    # Threads: OpenCV lets go of the interpreter while it works, and its own threads do not survive a fork.
    with ThreadPoolExecutor(workers) as pool:
        masks = list(pool.map(partial(_row_prior, boxes), order.tolist()))
    found = {row: mask for row, mask in zip(order, masks, strict=True) if mask is not None}
    save_priors(path, found)


def _row_prior(boxes: TrainingBoxes, row: int) -> np.ndarray | None:
    try:
        picture = boxes.pictures[boxes.picture[row]].read()
    except ImageProblem:
        return None
    return grabcut_prior(picture, boxes.boxes[row])


def save_priors(path: Path, masks: Mapping[int, np.ndarray]) -> None:
    """Masks over boxes by row, uint8 [n,n] of 0..255 and of one size, as `load_priors` reads them (.npz)."""
    np.savez_compressed(path, rows=np.array(list(masks)), masks=np.stack(list(masks.values())))


def load_priors(path: Path) -> dict[int, Prior]:
    """The stored priors worth trusting, by row: those that reach all four sides of their box and do not fill it."""
    with np.load(path) as stored:
        rows, masks = stored["rows"], stored["masks"]
    solid = masks > 127
    reach = np.minimum(solid.any(1).mean(1), solid.any(2).mean(1))
    fill = solid.mean((1, 2))
    trusted = (reach >= MIN_REACH) & (fill >= FILL[0]) & (fill <= FILL[1])
    return {int(row): Prior(mask, 1.0) for row, mask, keep in zip(rows, masks, trusted, strict=True) if keep}


def place_prior(prior: np.ndarray, inner: tuple[int, int, int, int], size: int) -> np.ndarray:
    """A stored prior put into a crop: uint8 [size,size], zero outside `inner` (XYXY crop pixels of the box)."""
    x0, y0, x1, y1 = inner
    placed = np.zeros((size, size), np.uint8)
    if x1 > x0 and y1 > y0:
        placed[y0:y1, x0:x1] = np.asarray(Image.fromarray(prior).resize((x1 - x0, y1 - y0)))
    return placed


def place_prior_off(prior: np.ndarray, box: Sequence[float], extended: Sequence[int], size: int) -> np.ndarray:
    """The same in a crop that need not hold all of its box: uint8 [size,size], zero outside the box.

    box: XYXY original pixels. extended: XYXY of the crop, original pixels.
    """
    side = prior.shape[0]
    steps, starts = [], []
    for axis in (0, 1):
        first, last, start, stop = box[axis], box[axis + 2], extended[axis], extended[axis + 2]
        # Crop pixel i has its centre at (i + .5) * step in the picture, and the prior's cells lie likewise in the box.
        step = (stop - start) / size * side / (last - first)
        steps.append(step)
        starts.append((start - first) * side / (last - first) + step / 2 - 0.5)
    matrix = np.array([[steps[0], 0, starts[0]], [0, steps[1], starts[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    placed: np.ndarray = cv2.warpAffine(prior, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return placed
