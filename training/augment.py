"""MAL's training augmentations: random margins, a shared mirror, and colour changes for the student only."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as colour

from mal_trt.crops import read_crop, resize_line

# Colour jitter of strength (0.4, 0.4, 0.2, 0.1): each change with its range.
JITTER = (
    (colour.adjust_brightness, 0.6, 1.4),
    (colour.adjust_contrast, 0.6, 1.4),
    (colour.adjust_saturation, 0.8, 1.2),
    (colour.adjust_hue, -0.1, 0.1),
)


def random_margins(rng: np.random.Generator, low: float = 0.0, high: float = 1.2) -> tuple[float, ...]:
    """Left, top, right, bottom margins; opposite sides share one random budget."""
    u = rng.uniform(low, high, 4)
    gate_x, gate_y = rng.uniform(size=2)
    return gated_margins(u, (gate_x, gate_y))


def gated_margins(u: np.ndarray, gates: tuple[float, float]) -> tuple[float, ...]:
    """u: four draws from the margin range (left, top, right, bottom). gates: share of the low side in x and y."""
    gx, gy = gates
    return u[0] * gx, u[1] * gy, u[2] * (1 - gx), u[3] * (1 - gy)


def wrapped_box_mask(
    inside: tuple[int, int, int, int], extended: tuple[int, ...], shape: tuple[int, int], size: int
) -> np.ndarray:
    """Training's box mask: the full picture's 0/1 mask cropped with the picture's wrap-around; uint8 [size,size].

    inside: XYXY whole pixels the box covers. shape: (H, W) of the picture. A rectangle is separable, so two
    lines are resized instead of the mask.
    """
    lines = []
    for first, last, start, stop, side in (
        (inside[1], inside[3], extended[1], extended[3], shape[0]),
        (inside[0], inside[2], extended[0], extended[2], shape[1]),
    ):
        at = np.arange(start, stop) % side
        lines.append(resize_line(((at >= first) & (at < last)).astype(np.uint8), size))
    return np.outer(*lines)


def wrapped_mask(mask: np.ndarray, extended: tuple[int, ...], size: int) -> np.ndarray:
    """A whole-picture 0/1 mask (uint8 [H,W]) cropped and resized like the picture; uint8 [size,size]."""
    return read_crop(mask, extended, size)


def student_colours(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour jitter (p 0.5), grey (p 0.2), Gaussian blur (p 0.5); uint8 [S,S,3] in and out."""
    image = Image.fromarray(crop)
    if rng.random() < 0.5:
        for i in rng.permutation(len(JITTER)):
            change, low, high = JITTER[i]
            image = change(image, rng.uniform(low, high))
    if rng.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return np.asarray(image)


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def normalise(crops: torch.Tensor) -> torch.Tensor:
    """uint8 [B,S,S,3] RGB -> float32 [B,3,S,S], ImageNet mean and deviation."""
    image = crops.permute(0, 3, 1, 2).float().div_(255)
    return image.sub_(MEAN.to(image.device)).div_(STD.to(image.device))
