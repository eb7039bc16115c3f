"""Copy and paste: what hides a part of an object is known exactly where it was pasted by us.

A box does not say what stands in front of its object or beside it, and a network that learns from boxes takes such
things into its masks. So cut-outs, and copies of the object itself, go in front of it (and out of its mask) or behind
it, and whole scenes are made of them, with exact masks. After Ghiasi et al., arXiv 2012.07177, but without drawn masks:
the cut-outs are those of `cutouts`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from mal_trt.geometry.local_mask import bounds
from mal_trt.training.cutouts import SOLID, Cutouts, outlined
from mal_trt.training.figures import MIN_SHARE, Patch, developed

Rng = np.random.Generator

TRIES = 3
OWN_COPY, BEHIND = 0.4, 0.35  # how often a copy of the object itself is pasted, and how often what is goes behind it
HIDDEN = (0.02, 0.5)  # share of the object that what is in front of it hides
STAYS = 0.05  # how far its sides may move by that, as a share of its length
ALIKE = 0.4  # share of scenes whose objects are copies of one another
LEFT = 0.4  # least share of a scene's object that is seen


def pasted(crop: np.ndarray, soft: np.ndarray, cutouts: Cutouts, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A crop and its object's soft mask with something pasted in front of the object or behind it.

    crop: uint8 [S,S,3] RGB. soft: uint8 [S,S], 255 is surely object. Both come back as they were where nothing fits:
    the sides of what is seen must stay where they are, since the box does.
    """
    object_ = soft > SOLID
    around = bounds(object_)
    if around is None:
        return crop, soft
    x0, y0, x1, y1 = around
    length = max(x1 - x0, y1 - y0)
    own = outlined(crop[y0:y1, x0:x1], soft[y0:y1, x0:x1]) if rng.random() < OWN_COPY else None
    behind = rng.random() < BEHIND
    ground = crop.astype(np.float32)
    for _ in range(TRIES):
        if own is not None:
            size = length * rng.uniform(0.7, 1.1)
        else:
            size = length * math.exp(rng.uniform(math.log(0.25), math.log(1.2 if behind else 0.9)))
        colours, alpha = _shown(cutouts.draw(rng) if own is None else own, size, rng)
        if behind:
            angle, away = rng.uniform(0, 2 * math.pi), length * rng.uniform(0.3, 0.7)
            centre = (x0 + x1) / 2 + away * math.cos(angle), (y0 + y1) / 2 + away * math.sin(angle)
            picture, _ = _put(ground, colours, alpha, centre)
            kept = np.clip(soft.astype(np.float32) / 255 * 2 - 0.3, 0, 1)[..., None]
            return (picture * (1 - kept) + crop * kept).astype(np.uint8), soft
        reach = 0.1 * length
        centre = rng.uniform(x0 - reach, x1 + reach), rng.uniform(y0 - reach, y1 + reach)
        picture, cover = _put(ground, colours, alpha, centre)
        left = object_ & (cover <= 0.5)
        hidden = 1 - left.sum() / object_.sum()
        if HIDDEN[0] < hidden < HIDDEN[1] and _near(around, bounds(left), max(2.0, STAYS * length)):
            return picture.astype(np.uint8), (soft * (1 - cover)).astype(np.uint8)
    return crop, soft


def scene(patch: Patch, cutouts: Cutouts, rng: Rng, side: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [side,side,3] of cut-outs and the visible mask uint8 [side,side] of 0/1 of the main one.

    patch: see `figures.draw_figure`; here it is the ground.
    """
    main, alike = cutouts.draw(rng), rng.random() < ALIKE
    scale = rng.uniform(0.3, 0.85)

    def another() -> tuple[np.ndarray, np.ndarray]:
        size = scale * rng.uniform(0.6, 1.1) if alike else rng.uniform(0.15, 0.7)
        return _shown(main if alike and rng.random() < 0.8 else cutouts.draw(rng), side * size, rng)

    picture = patch(rng, side).astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        picture, _ = _put(picture, *another(), tuple(rng.uniform(0, side, 2)))
    shown, cover = _put(picture, *_shown(main, side * scale, rng), tuple(side * (0.5 + rng.uniform(-0.15, 0.15, 2))))
    picture, mask = shown, cover > 0.5
    for _ in range(rng.integers(0, 3)):
        shown, cover = _put(picture, *another(), tuple(rng.uniform(0, side, 2)))
        left = mask & (cover <= 0.5)
        if left.sum() > LEFT * mask.sum():
            picture, mask = shown, left
    if mask.mean() < MIN_SHARE:
        return scene(patch, cutouts, rng, side)
    return developed(picture, rng), mask.astype(np.uint8)


def _shown(cutout: np.ndarray, size: float, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A cut-out `size` pixels long, perhaps mirrored, turned, in other light: float32 [h,w,3] and alpha 0..1 [h,w]."""
    scale = size / max(cutout.shape[:2])
    width, height = (max(4, round(side * scale)) for side in (cutout.shape[1], cutout.shape[0]))
    if rng.random() < 0.3:
        width = max(4, int(width * rng.uniform(0.75, 1.25)))
    rgba = cv2.resize(cutout, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        rgba = np.ascontiguousarray(rgba[:, ::-1])
    if rng.random() < 0.4:
        rgba = _turned(rgba, rng.normal(0, 15))
    colours, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3].astype(np.float32) / 255
    colours = colours * rng.uniform(0.7, 1.2) + rng.normal(0, 12)
    if rng.random() < 0.15:
        colours = np.repeat(colours.mean(2, keepdims=True), 3, axis=2)
    if rng.random() < 0.4:
        blur = rng.uniform(0.3, 1.0)
        alpha, colours = cv2.GaussianBlur(alpha, (0, 0), blur), cv2.GaussianBlur(colours, (0, 0), blur)
    return np.clip(colours, 0, 255), alpha


def _turned(rgba: np.ndarray, angle: float) -> np.ndarray:
    """Turned about its centre by an angle in degrees, in a frame that holds all of it."""
    height, width = rgba.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    wide, high = int(height * sine + width * cosine) + 1, int(height * cosine + width * sine) + 1
    matrix[:, 2] += (wide - width) / 2, (high - height) / 2
    turned: np.ndarray = cv2.warpAffine(rgba, matrix, (wide, high), flags=cv2.INTER_LINEAR)
    return turned


def _put(
    picture: np.ndarray, colours: np.ndarray, alpha: np.ndarray, centre: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A new picture float32 [H,W,3] with something blended in, and how far it covers it, 0..1 [H,W]."""
    height, width = alpha.shape
    x, y = int(centre[0] - width / 2), int(centre[1] - height / 2)
    x0, y0, x1, y1 = max(0, x), max(0, y), min(picture.shape[1], x + width), min(picture.shape[0], y + height)
    cover = np.zeros(picture.shape[:2], np.float32)
    picture = picture.copy()
    if x1 > x0 and y1 > y0:
        part = alpha[y0 - y : y1 - y, x0 - x : x1 - x]
        cover[y0:y1, x0:x1] = part
        under = picture[y0:y1, x0:x1]
        under += (colours[y0 - y : y1 - y, x0 - x : x1 - x] - under) * part[..., None]
    return picture, cover


def _near(one: tuple[int, ...], other: tuple[int, ...] | None, most: float) -> bool:
    return other is not None and max(abs(a - b) for a, b in zip(one, other, strict=True)) <= most
