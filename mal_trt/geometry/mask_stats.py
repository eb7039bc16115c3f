"""Figures of masks, many at once, from nothing but their run lengths and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mal_trt.geometry.quality import DIGITS
from mal_trt.geometry.rle import RLE
from mal_trt.geometry.rle_batch import run_ends


def mask_stats(rles: Sequence[RLE], areas: Sequence[int], boxes: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Figures of each mask that show how good it may be: `box_share`, `edges` and `parts`.

    rles: COCO's. areas: pixels of each. boxes: of each, XYXY. box_share: the mask's pixels as a share of its box.
    edges: how many sides of the box, 0 to 4, the mask reaches or comes within a pixel of. parts: connected parts;
    pixels that meet at a corner are of one.
    """
    if not rles:
        return []
    box = np.array(boxes, np.float64)
    shares = np.array(areas) / ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]))
    mask, column, first, last = _column_runs(rles)
    number = len(rles)
    runs = np.bincount(mask, minlength=number)
    some = np.flatnonzero(runs)
    edges = np.zeros(number, np.int64)
    if len(some):
        begin = (np.cumsum(runs) - runs)[some]
        x0, y0, x1, y1 = box[some].T
        edges[some] += column[begin] <= x0 + 1
        edges[some] += np.minimum.reduceat(first, begin) <= y0 + 1
        edges[some] += column[begin + runs[some] - 1] + 1 >= x1 - 1
        edges[some] += np.maximum.reduceat(last, begin) >= y1 - 1
    parts = _parts(mask, column, first, last, number)
    return [
        {"box_share": round(share, DIGITS), "edges": touched, "parts": count}
        for share, touched, count in zip(shares.tolist(), edges.tolist(), parts, strict=True)
    ]


def _column_runs(rles: Sequence[RLE]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mask, column, first row and last row (exclusive) of each run within a column, in the order of the RLEs."""
    mask, starts, ends = run_ends(rles)
    solid = ends > starts
    mask, starts, ends = mask[solid], starts[solid], ends[solid]
    height = np.array([rle["size"][0] for rle in rles], np.int64)[mask]
    over = (ends - 1) // height - starts // height + 1  # columns that each run goes through
    again = np.repeat(np.arange(len(over)), over)
    column = (starts // height)[again] + np.arange(len(again)) - (np.cumsum(over) - over)[again]
    top = column * height[again]
    return (
        mask[again],
        column,
        np.maximum(starts[again], top) - top,
        np.minimum(ends[again], top + height[again]) - top,
    )


def _parts(mask: np.ndarray, column: np.ndarray, first: np.ndarray, last: np.ndarray, number: int) -> list[int]:
    """Connected parts of each mask, of runs that are sorted by mask, column and row."""
    if not len(mask):
        return [0] * number
    # Columns of all masks in a row, those of two masks never side by side; rows of a column below each other.
    place = column + mask * (int(column.max()) + 2) + 1
    high = int(last.max()) + 1
    # The runs in the column before that each one meets.
    low = np.searchsorted(place * high + last, (place - 1) * high + first)
    meets = np.maximum(np.searchsorted(place * high + first, (place - 1) * high + last, "right") - low, 0)
    # Each run hangs on the first of them: trees, whose roots meet none. All others join two trees, or one to itself.
    root = np.where(meets > 0, low, np.arange(len(low)))
    while (above := root[root]).tobytes() != root.tobytes():
        root = above
    more = np.maximum(meets - 1, 0)
    run = np.repeat(np.arange(len(more)), more)
    other = np.repeat(low + 1 - (np.cumsum(more) - more), more) + np.arange(len(run))
    parts: list[int] = np.bincount(mask[meets == 0], minlength=number).tolist()
    joined: dict[int, int] = {}
    for one, two, own in zip(root[run].tolist(), root[other].tolist(), mask[run].tolist(), strict=True):
        ends = []
        for tree in (one, two):
            while (next_ := joined.get(tree, tree)) != tree:
                joined[tree] = tree = joined.get(next_, next_)
            ends.append(tree)
        if ends[0] != ends[1]:
            joined[ends[0]] = ends[1]
            parts[own] -= 1
    return parts
