"""Procedural pictures with an exact mask: a textured figure on a textured ground, cut from real pictures.

They teach what a figure is (closed, textured, in front) before and beside training from boxes; see the
evidence on shape primitives and contours in arXiv 2401.03665 and 2309.17083.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Patch = Callable[[Rng, int], np.ndarray]

# A figure smaller than this share of the picture is drawn again.
MIN_SHARE = 0.01


def draw_figure(patch: Patch, rng: Rng, side: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [side,side,3] and the visible mask of its main figure uint8 [side,side] of 0/1.

    patch(rng, side) gives a random uint8 [side,side,3] texture; figure, ground and occluder draw their own.
    """
    ground = _texture(patch, rng, side)
    for _ in range(rng.integers(0, 3)):
        distractor = _shape(rng, side, rng.uniform(0.1, 0.35))
        ground = _compose(ground, _texture(patch, rng, side), distractor, rng)
    shape = _shape(rng, side, rng.uniform(0.2, 0.42))
    while (shape > 127).mean() < MIN_SHARE:
        shape = _shape(rng, side, rng.uniform(0.2, 0.42))
    texture = _texture(patch, rng, side)
    if rng.random() < 0.35:
        texture = _shaded(texture, rng)
    picture = _compose(ground, texture, shape, rng)
    mask = shape > 127
    if rng.random() < 0.25:
        occluder = _shape(rng, side, rng.uniform(0.08, 0.2))
        left = mask & (occluder <= 127)
        if left.sum() > 0.5 * mask.sum():
            picture, mask = _compose(picture, _texture(patch, rng, side), occluder, rng), left
    return picture, mask.astype(np.uint8)


def _texture(patch: Patch, rng: Rng, side: int) -> np.ndarray:
    kind = rng.random()
    pixels: np.ndarray
    if kind < 0.6:
        pixels = patch(rng, side).astype(np.float32)
        if rng.random() < 0.5:
            # Low contrast around the mean colour: real objects are often nearly plain.
            mean = pixels.mean((0, 1))
            pixels = mean + (pixels - mean) * rng.uniform(0.1, 0.7)
    elif kind < 0.85:
        pixels = _noise(rng, side)
    else:
        pixels = rng.uniform(0, 255, 3) + rng.normal(0, rng.uniform(1, 12), (side, side, 3))
    shift = rng.normal(0, 25, 3)
    if rng.random() < 0.5:
        slope = rng.normal(0, 30, 2)
        ramp = np.linspace(-1, 1, side)
        pixels = pixels + (ramp[:, None] * slope[0] + ramp * slope[1])[..., None]
    return np.clip(pixels + shift, 0, 255).astype(np.float32)


def _noise(rng: Rng, side: int) -> np.ndarray:
    """Coloured 1/f-like noise: a few octaves of smooth random fields."""
    total = np.zeros((side, side, 3), np.float32)
    for cells in (3, 6, 12, 24, 48):
        field = rng.normal(0, 1, (cells, cells, 3)) * (3 / cells) ** rng.uniform(0.3, 1.0)
        for c in range(3):
            layer = Image.fromarray(field[..., c].astype(np.float32))
            total[..., c] += np.asarray(layer.resize((side, side), Image.Resampling.BICUBIC))
    grey = rng.uniform(0, 1)
    total = total * (1 - grey) + total.mean(2, keepdims=True) * grey
    return np.asarray(rng.uniform(40, 215, 3) + total * rng.uniform(15, 60), np.float32)


def _shaded(texture: np.ndarray, rng: Rng) -> np.ndarray:
    """Half the figure darker or lighter: parts of one object often look unlike."""
    side = texture.shape[0]
    angle, cut = rng.uniform(0, math.pi), rng.uniform(-0.2, 0.2)
    ramp = np.linspace(-1, 1, side)
    half = (ramp[:, None] * math.sin(angle) + ramp * math.cos(angle)) > cut
    return np.clip(texture + half[..., None] * rng.normal(0, 45, 3), 0, 255)


def _shape(rng: Rng, side: int, scale: float) -> np.ndarray:
    """A soft-edged figure of about `scale` of the side in radius; uint8 [side,side], 255 inside."""
    canvas = Image.new("L", (side * 2, side * 2))
    draw = ImageDraw.Draw(canvas)
    centre = side * 2 * (0.5 + rng.uniform(-0.12, 0.12, 2))
    radius = scale * side * 2
    kind = rng.random()
    if kind < 0.45:
        draw.polygon(_blob(rng, centre, radius), fill=255)
    elif kind < 0.65:
        draw.polygon(_polygon(rng, centre, radius), fill=255)
    else:
        draw.polygon(_blob(rng, centre, radius * 0.55), fill=255)
        for _ in range(rng.integers(2, 6)):
            _limb(draw, rng, centre, radius)
    if rng.random() < 0.12:
        draw.polygon(_blob(rng, centre, radius * rng.uniform(0.2, 0.4)), fill=0)
    canvas = canvas.resize((side, side), Image.Resampling.BILINEAR)
    if rng.random() < 0.6:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    return np.asarray(canvas)


def _blob(rng: Rng, centre: np.ndarray, radius: float) -> list[tuple[float, float]]:
    angle = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    harmonics = np.arange(2, 8)
    amplitude = rng.normal(0, 0.28, harmonics.size) / harmonics**0.7
    phase = rng.uniform(0, 2 * math.pi, harmonics.size)
    r = radius * np.clip(1 + (amplitude[:, None] * np.cos(harmonics[:, None] * angle + phase[:, None])).sum(0), 0.2, 2)
    stretch, turn = rng.uniform(0.45, 1.0), rng.uniform(0, math.pi)
    x, y = r * np.cos(angle), r * np.sin(angle) * stretch
    c, s = math.cos(turn), math.sin(turn)
    return list(zip((centre[0] + c * x - s * y).tolist(), (centre[1] + s * x + c * y).tolist(), strict=True))


def _polygon(rng: Rng, centre: np.ndarray, radius: float) -> list[tuple[float, float]]:
    angle = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
    r = radius * rng.uniform(0.5, 1.2, angle.size)
    return list(zip((centre[0] + r * np.cos(angle)).tolist(), (centre[1] + r * np.sin(angle)).tolist(), strict=True))


def _limb(draw: ImageDraw.ImageDraw, rng: Rng, centre: np.ndarray, radius: float) -> None:
    angle, width = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.08, 0.3)
    joint = centre + radius * rng.uniform(0.5, 0.8) * np.array([math.cos(angle), math.sin(angle)])
    angle += rng.normal(0, 0.7)
    end = joint + radius * rng.uniform(0.3, 0.7) * np.array([math.cos(angle), math.sin(angle)])
    points = [tuple(p) for p in (centre, joint, end)]
    draw.line(points, fill=255, width=max(2, int(width)), joint="curve")
    for x, y in points[1:]:
        draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def _compose(ground: np.ndarray, figure: np.ndarray, shape: np.ndarray, rng: Rng) -> np.ndarray:
    """Alpha blend."""
    alpha = shape[..., None].astype(np.float32) / 255
    return developed(ground * (1 - alpha) + figure * alpha, rng)


def developed(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """uint8 of a picture, 0..255: sometimes with blur or grain over all, so that a cut itself is no clue."""
    mixed = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        mixed = mixed.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.2)))
    pixels = np.asarray(mixed)
    if rng.random() < 0.3:
        pixels = np.clip(pixels + rng.normal(0, rng.uniform(1, 8), pixels.shape), 0, 255).astype(np.uint8)
    return pixels
