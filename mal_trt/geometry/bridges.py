"""Bridges of no width, walked there and back, that join several closed lines into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mal_trt.geometry.contours import NORTH, SOUTH, Contour

MOST_PAIRS = 1 << 22  # of points that are compared


def join_lines(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Closed lines, [n,2] each and at least one, as one: each further line is joined to what there is by a bridge.

    A bridge connects the points nearest to each other. Under the even-odd rule the same points are inside.
    """
    first, *others = lines
    for line in others:
        first = join(first, line, *nearest(first, line))
    return first


def join(line: np.ndarray, other: np.ndarray, here: int, there: int) -> np.ndarray:
    """A line that leaves for another one at its point `here`, goes around that from its point `there`, and comes
    back."""
    return np.concatenate([line[: here + 1], other[there:], other[: there + 1], line[here:]])


def nearest(line: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Index of the point of each line that is nearest to the other line; only nearly so for very long lines."""
    if len(line) * len(other) > MOST_PAIRS:
        here = int(((line - other.mean(axis=0)) ** 2).sum(axis=1).argmin())
        return here, int(((other - line[here]) ** 2).sum(axis=1).argmin())
    apart = (line[:, None, 0] - other[None, :, 0]) ** 2 + (line[:, None, 1] - other[None, :, 1]) ** 2
    return divmod(int(apart.argmin()), len(other))


def join_contours(mask: np.ndarray, contours: Sequence[Contour]) -> np.ndarray:
    """The pixels along a part's outer contour, which comes first, and those of its holes in one closed line, int [n,2].

    Each hole has a bridge that runs from its leftmost pixel further left, over foreground alone, to the next contour.
    So the bridges make a tree, and a reader who draws them adds nothing.
    """
    position = {
        (x, y): (number, place)
        for number, contour in enumerate(contours)
        for place, (way, (x, y)) in enumerate(zip(contour.way.tolist(), contour.at.tolist(), strict=True))
        if way == NORTH
    }
    start: list[int] = [0]
    bridges: list[list[tuple[int, int]]] = [[] for _ in contours]  # of each: from which place, to which contour
    for number, contour in enumerate(contours[1:], 1):
        (sides,) = np.nonzero(contour.way == SOUTH)
        place = int(sides[contour.at[sides, 0].argmin()])
        x, y = contour.at[place].tolist()
        (background,) = np.nonzero(~mask[y, :x])
        parent, here = position[int(background[-1]) + 1 if len(background) else 0, y]
        start.append(place)
        bridges[parent].append((here, number))
    pieces: list[np.ndarray] = []
    stack = [_Tour(0, contours[0].at, 0, bridges[0])]
    while stack:
        tour = stack[-1]
        if tour.bridges:
            place, other = tour.bridges.pop()
            pieces.append(tour.line[tour.at : place + 1])
            tour.at = place
            stack.append(_Tour(other, contours[other].at, start[other], bridges[other]))
            continue
        pieces.append(tour.line[tour.at :])
        if stack.pop().number:
            pieces.append(tour.line[:1])
    return np.concatenate(pieces)


class _Tour:
    """A walk once around a line from its point `start`. at: how far it has come. bridges: those still ahead, (place, to
    which contour), the next one last."""

    def __init__(self, number: int, line: np.ndarray, start: int, bridges: Sequence[tuple[int, int]]) -> None:
        self.number, self.at = number, 0
        self.line = np.concatenate([line[start:], line[:start]])
        self.bridges = sorted((((place - start) % len(line), other) for place, other in bridges), reverse=True)
