"""Batches of crops of one size: an epoch's boxes put together by their size class. How a box is cropped is `data`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TypeVar

import numpy as np

from mal_trt.geometry.boxes import MEDIUM_AREA, SMALL_AREA, SizeClass

T = TypeVar("T")
# Areas, square pixels, that figures of each size class are drawn with.
AREAS = ((500.0, SMALL_AREA), (SMALL_AREA + 1, MEDIUM_AREA), (MEDIUM_AREA + 1, 200_000.0))


def size_classes(boxes: np.ndarray) -> np.ndarray:
    """Size class of each XYXY box [N,4] in original pixels, int64 [N]."""
    areas = (boxes[:, 2] - boxes[:, 0]).astype(np.float64) * (boxes[:, 3] - boxes[:, 1])
    found: np.ndarray = np.searchsorted([SMALL_AREA, MEDIUM_AREA], areas, side="left")
    return found


def by_size(order: np.ndarray, classes: np.ndarray, group: int, rng: np.random.Generator) -> np.ndarray:
    """The rows of `order`, int64 [n], so that each `group` that follow each other are of one size class.

    classes: size class of each row of `order`. A class has as many groups as suits its share of the rows, and one at
    least where there is room: rows that are too many are left out, and where there are too few they come again. The
    number of groups, n // group, does not depend on the classes; the groups come in random order.
    """
    groups = len(order) // group
    present, counts = np.unique(classes, return_counts=True)
    if not groups or len(present) == 1:
        return order[: groups * group] if groups else order
    exact = counts * groups / len(order)
    least = int(groups >= len(present))
    quotas = np.maximum(np.floor(exact).astype(int), least)
    while quotas.sum() < groups:
        quotas[np.argmax(exact - quotas)] += 1
    while quotas.sum() > groups:
        quotas[np.argmax(np.where(quotas > least, quotas - exact, -np.inf))] -= 1
    rows = [
        np.resize(order[classes == size], (quota, group))
        for size, quota in zip(present, quotas, strict=True)
        if quota  # np.resize of nothing gives nothing, but of another shape
    ]
    shuffled: np.ndarray = rng.permutation(np.concatenate(rows)).ravel()
    return shuffled


def drawn_area(size: int, rng: np.random.Generator) -> float:
    """Area of a figure of a size class, original square pixels: of its logarithm each is as likely."""
    low, high = AREAS[SizeClass(size)]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def batches(items: Sequence[T], side: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Batches of `most` items at most whose crops have one side, in the order of sides."""
    for _, same in groupby(sorted(items, key=side), side):
        some = list(same)
        for start in range(0, len(some), most):
            yield some[start : start + most]
