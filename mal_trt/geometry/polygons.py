"""Masks as polygons that lose nothing: a pixel is inside the polygon exactly if the mask has it."""

from __future__ import annotations

import numpy as np

# (y, x) of the directions east, south, west, north: each the right turn of the one before.
_WAYS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed lines around a mask's parts and holes, each int64 [n,2], n >= 4: x, y in **half** pixels.

    mask: bool [H,W]. A line runs through the middles of the sides between foreground and background pixels (marching
    squares at one half), with the foreground on its right: clockwise around parts, the other way around holes. Pixels
    that meet at a corner are of one part. Points on a straight line are left out. Under the even-odd rule the lines
    hold the centres of the mask's pixels and of no others.
    """
    inside = np.pad(np.asarray(mask, bool), 1)
    width = inside.shape[1]
    flat = inside.reshape(-1)
    steps = _WAYS @ (width, 1)
    # A side is its foreground pixel and the way it is walked, which has the background pixel on its left.
    ways, pixels = np.nonzero([flat & ~np.roll(flat, -steps[way - 1]) for way in range(4)])
    if not len(pixels):
        return []
    ahead = pixels + steps[ways]
    left_ahead = ahead + steps[ways - 1]
    turn_left, straight = flat[left_ahead], flat[ahead]
    next_way = np.where(turn_left, ways - 1, np.where(straight, ways, ways + 1)) % 4
    next_pixel = np.where(turn_left, left_ahead, np.where(straight, ahead, pixels))
    follower = np.searchsorted(ways * flat.size + pixels, next_way * flat.size + next_pixel)
    y, x = np.divmod(pixels, width)
    middles = np.stack([2 * x - 1, 2 * y - 1], axis=1) + _WAYS[ways - 1][:, ::-1]
    return [_corners(middles[loop]) for loop in _loops(follower.tolist())]


def one_line(lines: list[np.ndarray]) -> np.ndarray:
    """Several closed lines as one, the largest first, the others tied to it by there-and-back bridges of no width.

    A line is tied to the point nearest to its middle, by its own point nearest to that. Under the even-odd rule the
    same points are inside. lines: of [n,2], at least one.
    """
    first, *others = sorted(lines, key=lambda line: -abs(_twice_area(line)))
    for line in others:
        here = _nearest(first, line.mean(axis=0))
        tour = np.roll(line, -_nearest(line, first[here]), axis=0)
        first = np.concatenate([first[: here + 1], tour, tour[:1], first[here:]])
    return first


def _loops(follower: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    loops = []
    seen = bytearray(len(follower))
    for start in range(len(follower)):
        at, loop = start, []
        while not seen[at]:
            seen[at] = 1
            loop.append(at)
            at = follower[at]
        if loop:
            loops.append(loop)
    return loops


def _corners(line: np.ndarray) -> np.ndarray:
    """A closed line without the points at which it goes straight on."""
    came, goes = line - np.roll(line, 1, axis=0), np.roll(line, -1, axis=0) - line
    turns = came[:, 0] * goes[:, 1] != came[:, 1] * goes[:, 0]
    return np.compress(turns, line, axis=0)


def _nearest(line: np.ndarray, point: np.ndarray) -> int:
    return int(((line - point) ** 2).sum(axis=1).argmin())


def _twice_area(line: np.ndarray) -> int:
    x, y = line.T
    return int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
