"""Soft masks over training boxes: how they are stored, which of them are trusted, and how one is put into a crop.

They are an earlier model's (`mask_priors`, a teacher's, an ensemble's); no drawn mask is involved. Not part of
published MAL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from PIL import Image

from mal_trt.base.errors import InputError, one_line
from mal_trt.base.files import open_regular

# A trusted prior spans this share of both box sides and fills the box by this much.
MIN_REACH = 0.85
FILL = (0.15, 0.95)


@dataclass(frozen=True)
class Prior:
    """A soft mask over one box, uint8 [n,n] of 0..255, and how far it may be trusted, 0..1."""

    mask: np.ndarray
    trust: float


def save_priors(path: Path, masks: Mapping[int, np.ndarray]) -> None:
    """Masks over boxes by row, uint8 [n,n] of 0..255 and of one size, as `load_priors` reads them (.npz)."""
    np.savez_compressed(path, rows=np.array(list(masks)), masks=np.stack(list(masks.values())))


def load_priors(path: Path) -> dict[int, Prior]:
    """The stored priors worth trusting, by row: those that reach all four sides of their box and do not fill it.

    InputError if it is another file."""
    rows, masks = stored_arrays(path, "priors", "rows", "masks")
    solid = masks > 127
    reach = np.minimum(solid.any(1).mean(1), solid.any(2).mean(1))
    fill = solid.mean((1, 2))
    trusted = (reach >= MIN_REACH) & (fill >= FILL[0]) & (fill <= FILL[1])
    return {int(row): Prior(mask, 1.0) for row, mask, keep in zip(rows, masks, trusted, strict=True) if keep}


def stored_arrays(path: Path, kind: str, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz by name; InputError, which says what `kind` was expected, if the file does not hold them."""
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, TypeError) as error:
        raise InputError(f"{path}: not a file of {kind} ({one_line(error)})") from None


def check_rows(path: Path, masks: Mapping[int, Prior], boxes: int) -> None:
    """InputError if a mask is of a row beyond the number of boxes: the file is of other boxes."""
    if masks and max(masks) >= boxes:
        raise InputError(
            f"{path}: holds a mask of box {max(masks)}, and there are {boxes} boxes to train from; it was made of "
            "other boxes, or with other limits of their area"
        )


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
