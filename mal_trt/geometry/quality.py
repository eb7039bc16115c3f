"""How sure the network is of a mask. Figures of the mask by itself: `geometry.mask_stats`."""

from __future__ import annotations

import numpy as np

from mal_trt.geometry.crops import Frame

DIGITS = 4


def soft_iou(logits: np.ndarray, frame: Frame, threshold: float) -> float:
    """How sure the network is of its mask: the IoU of the mask with its probabilities, from 0 to 1.

    sum(p * m) / sum(max(p, m)) over the logits' own grid inside the box; p the probability, m 1 where p is above the
    threshold. logits: float32 [h,w] of the whole crop that `frame` describes.
    """
    x0, y0, x1, y1 = inner_cells(np.array([frame.inner]), frame.size, *logits.shape)[0].tolist()
    # The exponential of float64 is the same on every processor in the digits that are kept.
    with np.errstate(over="ignore"):
        sure = 1 / (1 + np.exp(-logits[y0:y1, x0:x1].astype(np.float64)))
    mask = sure > threshold
    inside = float(sure[mask].sum())
    either = float(np.count_nonzero(mask)) + float(sure.sum()) - inside
    return round(inside / either, DIGITS) if either else 0.0


def inner_cells(inner: np.ndarray, size: int, height: int, width: int) -> np.ndarray:
    """The cells of height x width logits that boxes touch, XYXY, int [n,4]. inner: `Frame.inner` of each, int [n,4]."""
    cells = inner * np.array([width, height, width, height])
    return np.hstack([cells[:, :2] // size, -(-cells[:, 2:] // size)])
