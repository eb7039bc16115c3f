"""Contours: closed walks along the pixel sides between a mask and its background. Lines for formats: `polygons`."""

from __future__ import annotations

import numpy as np

# (y, x) of the directions east, south, west, north: each the right turn of the one before.
WAYS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
SOUTH, NORTH = 1, 3
# (x, y) from a pixel's top left corner to where its side begins that is walked each way, with the pixel on the right.
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


class Contour:
    """A closed walk along the sides between foreground (on the right) and background: clockwise around parts, the other
    way around holes.

    way: which way each side is walked, an index of WAYS, int [n]. at: x, y of the foreground pixel that each side
    belongs to, int [n,2]. corners: x, y of where each side begins, int [n,2]. area: twice the pixels enclosed, negative
    for a hole.
    """

    def __init__(self, way: np.ndarray, at: np.ndarray) -> None:
        self.way, self.at = way, at
        self.corners = at + _CORNERS[way]
        x, y = self.corners.T
        self.area = int(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])

    def holds(self, other: Contour) -> bool:
        """Whether the foreground pixel where another contour begins lies within this one."""
        x, y = other.at[0]
        across = (self.corners[:, 1] == y) & (self.way == SOUTH) | (self.corners[:, 1] == y + 1) & (self.way == NORTH)
        return bool(np.count_nonzero(across & (self.corners[:, 0] <= x)) % 2)

    def split(self) -> list[Contour]:
        """Cut into contours that come to no corner twice."""
        keys = self.corners @ (1 << 32, 1)
        if len(np.unique(keys)) == len(keys):
            return [self]
        pieces: list[list[int]] = []
        path: list[int] = []
        place: dict[int, int] = {}
        for index, key in enumerate(keys.tolist()):
            if key in place:
                cut = place[key]
                pieces.append(path[cut:])
                for gone in path[cut:]:
                    del place[int(keys[gone])]
                del path[cut:]
            place[key] = len(path)
            path.append(index)
        return [Contour(self.way[piece], self.at[piece]) for piece in (*pieces, path) if piece]


def find_contours(mask: np.ndarray, diagonal: bool) -> list[Contour]:
    """The contours of a mask, bool [H,W]. diagonal: whether pixels that meet at a corner are of one part."""
    inside = np.pad(np.asarray(mask, bool), 1)
    width = inside.shape[1]
    flat = inside.reshape(-1)
    steps = WAYS @ (width, 1)
    # A side is its foreground pixel and the way it is walked, which has the background pixel on its left. The margin
    # is background, so that what wraps around is too.
    ways, pixels = np.nonzero([flat & ~np.roll(flat, -steps[way - 1]) for way in range(4)])
    if not len(pixels):
        return []
    ahead = pixels + steps[ways]
    left_ahead = ahead + steps[ways - 1]
    straight = flat[ahead]
    turn_left = flat[left_ahead] & (straight | diagonal)
    next_way = np.where(turn_left, ways - 1, np.where(straight, ways, ways + 1)) % 4
    next_pixel = np.where(turn_left, left_ahead, np.where(straight, ahead, pixels))
    follower = np.searchsorted(ways * flat.size + pixels, next_way * flat.size + next_pixel)
    y, x = np.divmod(pixels, width)
    at = np.stack([x - 1, y - 1], axis=1)
    return [Contour(ways[sides], at[sides]) for sides in _cycles(follower.tolist())]


def _cycles(follower: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    cycles = []
    seen = bytearray(len(follower))
    for start in range(len(follower)):
        at, cycle = start, []
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = follower[at]
        if cycle:
            cycles.append(cycle)
    return cycles
