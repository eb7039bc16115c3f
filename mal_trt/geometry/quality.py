"""Signs of how good a mask is, from the mask, its box and its probabilities; what is true only a drawn mask can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mal_trt.geometry.crops import Frame
from mal_trt.geometry.rle import RLE, run_lengths

DIGITS = 4


def soft_iou(logits: np.ndarray, frame: Frame, threshold: float) -> float:
    """How sure the network is of its mask: the IoU of the mask with its probabilities, from 0 to 1.

    sum(p * m) / sum(max(p, m)) over the logits' own grid inside the box; p the probability, m 1 where p is above the
    threshold. logits: float32 [h,w] of the whole crop that `frame` describes.
    """
    x0, x1 = _cells(frame.inner[0], frame.inner[2], frame.size, logits.shape[1])
    y0, y1 = _cells(frame.inner[1], frame.inner[3], frame.size, logits.shape[0])
    # The exponential of float64 is the same on every processor in the digits that are kept.
    with np.errstate(over="ignore"):
        sure = 1 / (1 + np.exp(-logits[y0:y1, x0:x1].astype(np.float64)))
    mask = sure > threshold
    inside = float(sure[mask].sum())
    either = float(np.count_nonzero(mask)) + float(sure.sum()) - inside
    return round(inside / either, DIGITS) if either else 0.0


def marks(rle: RLE, area: int, box: Sequence[float]) -> dict[str, Any]:
    """What can be told of a mask, COCO RLE of so many pixels, and its box, XYXY.

    box_share: of the box's area. edges: sides of the box, 0 to 4, that the mask comes to within a pixel. parts:
    connected parts; pixels that meet at a corner are of one.
    """
    column, first, last = _column_runs(rle)
    share = area / ((box[2] - box[0]) * (box[3] - box[1]))
    edges = 0
    if len(column):
        edges = sum(
            (
                int(column[0]) <= box[0] + 1,
                int(first.min()) <= box[1] + 1,
                int(column[-1]) + 1 >= box[2] - 1,
                int(last.max()) >= box[3] - 1,
            )
        )
    return {
        "box_share": round(share, DIGITS),
        "edges": edges,
        "parts": _parts(column.tolist(), first.tolist(), last.tolist()),
    }


def _cells(first: int, last: int, size: int, cells: int) -> tuple[int, int]:
    """The cells of a crop's side that its pixels first..last touch."""
    return first * cells // size, -(-last * cells // size)


def _column_runs(rle: RLE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, first row and last row (exclusive) of each run within a column, in the order of the RLE."""
    height = int(rle["size"][0])
    edges = np.cumsum(run_lengths(rle))
    starts, ends = edges[0::2][: len(edges) // 2], edges[1::2]
    solid = ends > starts
    starts, ends = starts[solid], ends[solid]
    over = (ends - 1) // height - starts // height + 1  # columns that each run goes through
    column = np.repeat(starts // height, over) + np.arange(int(over.sum())) - np.repeat(np.cumsum(over) - over, over)
    first = np.maximum(np.repeat(starts, over), column * height) - column * height
    last = np.minimum(np.repeat(ends, over), (column + 1) * height) - column * height
    return column, first, last


def _parts(column: list[int], first: list[int], last: list[int]) -> int:
    """Connected parts of runs that are sorted by column and row."""
    parent = list(range(len(column)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    before = 0  # the first run that may touch this one
    for run in range(len(column)):
        while column[before] < column[run] - 1 or (column[before] < column[run] and last[before] < first[run]):
            before += 1
        other = before
        while column[other] < column[run] and first[other] <= last[run]:
            parent[root(other)] = root(run)
            other += 1
    return sum(parent[run] == run for run in range(len(column)))
