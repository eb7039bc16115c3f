"""MAL's training augmentations: random margins, a shared mirror, and colour changes for the student only."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from mal_trt.geometry.crops import read_crop, resize_line

# The loader's processes are the parallel part, and OpenCV's own threads do not survive a fork.
cv2.setNumThreads(1)

BRIGHTNESS, CONTRAST, SATURATION, HUE = (0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)


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
    if rng.random() < 0.5:
        changes = ((brightness, BRIGHTNESS), (contrast, CONTRAST), (saturation, SATURATION), (hue, HUE))
        for i in rng.permutation(len(changes)):
            change, span = changes[i]
            crop = change(crop, rng.uniform(*span))
    if rng.random() < 0.2:
        crop = saturation(crop, 0.0)
    if rng.random() < 0.5:
        crop = blur(crop, rng.uniform(0.1, 2.0))
    return crop


def jittered(box: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """An XYXY box with each side moved by up to `share` of the box's width or height, at least a pixel large."""
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + rng.uniform(-share, share, 4) * sides
    moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
    return moved.astype(box.dtype)  # type: ignore[no-any-return]


def harder(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coarser pixels (p 0.2), noise (p 0.2), an erased rectangle (p 0.3): for a student whose targets are fixed.

    uint8 [S,S,3] in and out, changed in place.
    """
    size = crop.shape[0]
    if rng.random() < 0.2:
        small = max(8, int(size * rng.uniform(0.25, 0.7)))
        crop = cv2.resize(cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < 0.2:
        noise = rng.normal(0, rng.uniform(2, 14), crop.shape)
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        height, width = (int(size * rng.uniform(0.08, 0.3)) for _ in range(2))
        y, x = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
        crop[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return crop


# The changes of torchvision's ColorJitter on Pillow images, to a grey level or two, in a fraction of the time.


def brightness(crop: np.ndarray, factor: float) -> np.ndarray:
    """Every level times the factor."""
    return _levels(crop, np.arange(256) * factor)


def contrast(crop: np.ndarray, factor: float) -> np.ndarray:
    """Levels moved from the mean grey of the crop."""
    mean = round(float(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).mean()))
    return _levels(crop, mean + (np.arange(256) - mean) * factor)


def saturation(crop: np.ndarray, factor: float) -> np.ndarray:
    """Colours moved from their own grey; 0 is grey."""
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    mixed: np.ndarray = cv2.addWeighted(crop, factor, grey, 1 - factor, 0)
    return mixed


def hue(crop: np.ndarray, turn: float) -> np.ndarray:
    """Hue turned by a share of the full circle."""
    hsv = cv2.cvtColor(crop, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(turn * 255) % 256)
    turned: np.ndarray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return turned


def blur(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, sigma in crop pixels, edges repeated."""
    blurred: np.ndarray = cv2.GaussianBlur(crop, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def _levels(crop: np.ndarray, table: np.ndarray) -> np.ndarray:
    changed: np.ndarray = cv2.LUT(crop, np.clip(table, 0, 255).astype(np.uint8))
    return changed


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def normalise(crops: torch.Tensor) -> torch.Tensor:
    """uint8 [B,S,S,3] RGB -> float32 [B,3,S,S], ImageNet mean and deviation."""
    image = crops.permute(0, 3, 1, 2).float().div_(255)
    return image.sub_(MEAN.to(image.device)).div_(STD.to(image.device))
