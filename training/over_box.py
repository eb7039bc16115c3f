"""Soft masks over exactly one box: sampled out of a crop's logits, put on one threshold. Who draws them: `teacher`,
`ensemble`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mal_trt.geometry.local_mask import bounds

SIDE = 64  # of a soft mask, which covers exactly the box


def place(box: Sequence[float], extended: Sequence[int]) -> list[float]:
    """Where a box lies in the crop of `extended`: XYXY of 0..1. Both XYXY, original pixels."""
    return [(box[i] - extended[i % 2]) / (extended[2 + i % 2] - extended[i % 2]) for i in range(4)]


def over_box(maps: Tensor, places: Tensor) -> Tensor:
    """Crops' maps [N,1,h,w] where the boxes lie, float [N,1,64,64]; places: [N,4], XYXY of 0..1 of the crop."""
    steps = (torch.arange(SIDE, device=places.device) + 0.5) / SIDE
    xs = places[:, None, 0] + (places[:, 2] - places[:, 0])[:, None] * steps
    ys = places[:, None, 1] + (places[:, 3] - places[:, 1])[:, None] * steps
    grid = torch.stack([xs[:, None, :].expand(-1, SIDE, -1), ys[:, :, None].expand(-1, -1, SIDE)], -1) * 2 - 1
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


def extent(mask: np.ndarray) -> float:
    """Share of the box that the tight box around a mask covers."""
    if (box := bounds(mask)) is None:
        return 0.0
    return float((box[2] - box[0]) * (box[3] - box[1])) / mask.size


def agreement(members: np.ndarray, whole: np.ndarray) -> float:
    """Mean IoU of masks, bool [M,n,n], with the one that is made of them all, bool [n,n]."""
    union = np.maximum((members | whole).sum((1, 2)), 1)
    return float(((members & whole).sum((1, 2)) / union).mean())


def recentred(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Probabilities with `threshold` moved to one half, in the logit."""
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    odds = p / (1 - p) * (1 - threshold) / threshold
    moved: np.ndarray = odds / (1 + odds)
    return moved
