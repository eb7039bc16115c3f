"""Several closed lines as one, tied together by there-and-back bridges of no width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mal_trt.geometry.loops import NORTH, SOUTH, Loop

MOST_PAIRS = 1 << 22  # of points that are compared


def tie(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Closed lines as one, the others tied to the first, one after the other.

    A bridge joins the points nearest to each other. Under the even-odd rule the same points are inside. lines: of
    [n,2], at least one.
    """
    first, *others = lines
    for line in others:
        first = tied(first, line, *nearest(first, line))
    return first


def tied(line: np.ndarray, other: np.ndarray, here: int, there: int) -> np.ndarray:
    """A line that goes to another one at its point `here`, around that from its point `there`, and back."""
    return np.concatenate([line[: here + 1], other[there:], other[: there + 1], line[here:]])


def nearest(line: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Which point of each is nearest to the other line; of very long lines only nearly so."""
    if len(line) * len(other) > MOST_PAIRS:
        here = int(((line - other.mean(axis=0)) ** 2).sum(axis=1).argmin())
        return here, int(((other - line[here]) ** 2).sum(axis=1).argmin())
    apart = (line[:, None, 0] - other[None, :, 0]) ** 2 + (line[:, None, 1] - other[None, :, 1]) ** 2
    return divmod(int(apart.argmin()), len(other))


def bridged(mask: np.ndarray, loops: Sequence[Loop]) -> np.ndarray:
    """The pixels beside a part's outer loop, which comes first, and its holes' in one go, int [n,2].

    Each hole has a bridge from where it reaches furthest left, leftwards through foreground alone, to the loop that
    lies there; so the bridges make a tree, and a reader who draws them adds nothing.
    """
    position = {
        (x, y): (number, place)
        for number, loop in enumerate(loops)
        for place, (way, (x, y)) in enumerate(zip(loop.way.tolist(), loop.at.tolist(), strict=True))
        if way == NORTH
    }
    start: list[int] = [0]
    ways: list[list[tuple[int, int]]] = [[] for _ in loops]  # of each loop: where a bridge begins, and whither
    for number, loop in enumerate(loops[1:], 1):
        (sides,) = np.nonzero(loop.way == SOUTH)
        place = int(sides[loop.at[sides, 0].argmin()])
        x, y = loop.at[place].tolist()
        (behind,) = np.nonzero(~mask[y, :x])
        parent, here = position[int(behind[-1]) + 1 if len(behind) else 0, y]
        start.append(place)
        ways[parent].append((here, number))
    pieces: list[np.ndarray] = []
    stack = [_Tour(0, loops[0].at, 0, ways[0])]
    while stack:
        tour = stack[-1]
        if tour.bridges:
            place, other = tour.bridges.pop()
            pieces.append(tour.line[tour.at : place + 1])
            tour.at = place
            stack.append(_Tour(other, loops[other].at, start[other], ways[other]))
            continue
        pieces.append(tour.line[tour.at :])
        if stack.pop().number:
            pieces.append(tour.line[:1])
    return np.concatenate(pieces)


class _Tour:
    """Where one is on a line that begins at `start`. bridges: (where, to which line) to come, the next one last."""

    def __init__(self, number: int, line: np.ndarray, start: int, bridges: Sequence[tuple[int, int]]) -> None:
        self.number, self.at = number, 0
        self.line = np.concatenate([line[start:], line[:start]])
        self.bridges = sorted((((place - start) % len(line), other) for place, other in bridges), reverse=True)
