"""Cut-outs: objects with their outline, to be pasted into other crops. What pastes them is `paste`.

They come from two places: the training pictures themselves, where a soft mask is trusted, and a folder of pictures
with a transparent ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mal_trt.base.errors import InputError
from mal_trt.base.files import FOLDER, file_kind
from mal_trt.formats.images import ImageProblem
from mal_trt.formats.pixels import begins_as_picture, open_picture
from mal_trt.geometry.local_mask import bounds
from mal_trt.training.pictures import TrainingBoxes
from mal_trt.training.prior import Prior

SIDE = 144  # longest side of a cut-out, pixels
LEAST_SIDE, LEAST_BOX = 16, 56  # shortest side of a cut-out, and of a box that one is cut from, pixels
MOST = 2500  # of the training pictures' own objects
TRUST = 0.965  # least trust of a soft mask that is cut along
FILL = (0.15, 0.93)  # of its own bounding box
WHOLE = 0.9  # least share of an object's largest piece
SOLID = 127  # alpha above which a pixel is the object's


@dataclass(frozen=True)
class Cutouts:
    """Cut-outs of several kinds, each uint8 [h,w,4] RGBA, trimmed to its outline; every kind is drawn equally often."""

    kinds: tuple[tuple[np.ndarray, ...], ...] = ()

    @staticmethod
    def of(*kinds: Sequence[np.ndarray]) -> Cutouts:
        """Of the kinds of which there are any."""
        return Cutouts(tuple(tuple(kind) for kind in kinds if len(kind)))

    def __len__(self) -> int:
        return sum(len(kind) for kind in self.kinds)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One of them."""
        kind = self.kinds[rng.integers(len(self.kinds))]
        return kind[rng.integers(len(kind))]


def read_cutouts(folder: Path) -> list[np.ndarray]:
    """The pictures with a transparent ground in a folder and below, in the order of their names.

    Those without one, or whose object is smaller than 16 px or nearly a rectangle, are left out. InputError if none is
    left, or one cannot be read.
    """
    if file_kind(folder) != FOLDER:
        raise InputError(f"{folder}: not a folder; --cutouts takes one with pictures that have a transparent ground")
    found, pictures = [], 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                if not begins_as_picture(file.read(32)):
                    continue
                pictures += 1
                cutout = _cut(_transparent(open_picture(file)))
        except (ImageProblem, OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path}: cannot be read ({error}); repair it or take it out of the folder") from None
        if cutout is not None:
            found.append(cutout)
    if not found:
        raise InputError(f"{folder}: none of its {pictures} pictures shows an object on a transparent ground")
    return found


def cut_objects(boxes: TrainingBoxes, masks: Mapping[int, Prior]) -> list[np.ndarray]:
    """The objects of the boxes (56 px and more) whose soft masks are in one piece and trusted by .965 and more.

    At most 2,500 of them, drawn at random, the same in every run.
    """
    sides = np.minimum(boxes.boxes[:, 2] - boxes.boxes[:, 0], boxes.boxes[:, 3] - boxes.boxes[:, 1])
    rows = [row for row in sorted(masks) if masks[row].trust >= TRUST and sides[row] >= LEAST_BOX]
    rows = np.random.default_rng(0).permutation(np.array(rows, np.int64))[:MOST].tolist()
    found, last, picture = [], -1, np.empty(0, np.uint8)
    for row in sorted(rows, key=lambda row: (boxes.picture[row], row)):
        number = int(boxes.picture[row])
        if number != last:
            try:
                last, picture = number, boxes.pictures[number].read()
            except ImageProblem:
                continue
        x0, y0, x1, y1 = np.round(boxes.boxes[row]).astype(int).tolist()
        cutout = _object(picture[y0:y1, x0:x1], masks[row].mask)
        if cutout is not None:
            found.append(cutout)
    return found


def _object(pixels: np.ndarray, soft: np.ndarray) -> np.ndarray | None:
    """pixels: uint8 [h,w,3] of a box. soft: uint8 [n,n] over it."""
    scale = min(1.0, SIDE / max(pixels.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    count, pieces, areas, _ = cv2.connectedComponentsWithStats((alpha > SOLID).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(areas[1:, cv2.CC_STAT_AREA]))
    if areas[largest, cv2.CC_STAT_AREA] < WHOLE * np.count_nonzero(alpha > SOLID):
        return None
    rgba = outlined(pixels, alpha)
    rgba[(pieces != largest) & (alpha > SOLID), 3] = 0
    return _cut(rgba)


def outlined(pixels: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Pixels uint8 [h,w,3] as a cut-out along a soft mask uint8 [h,w]: a little inside it, so that no ground comes
    along, and steeper."""
    alpha = np.clip((soft.astype(np.float32) - 128) * 4 + 100, 0, 255).astype(np.uint8)
    return np.dstack([pixels, alpha])


def _transparent(image: Image.Image) -> np.ndarray | None:
    """uint8 [h,w,4], at most SIDE long; None for a picture without a transparent ground."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > SOLID)).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def _cut(rgba: np.ndarray | None) -> np.ndarray | None:
    """Trimmed to its outline; None for one that is too small or too full to show an outline."""
    if rgba is None:
        return None
    solid = rgba[..., 3] > SOLID
    if (box := bounds(solid)) is None:
        return None
    own = slice(box[1], box[3]), slice(box[0], box[2])
    rgba, fill = rgba[own], float(solid[own].mean())
    return rgba if min(rgba.shape[:2]) >= LEAST_SIDE and FILL[0] <= fill <= FILL[1] else None
