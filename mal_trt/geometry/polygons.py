"""Masks as polygons: closed lines around a mask's parts and holes, through the points that its readers expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Where a line runs: through the middles of the sides between foreground and background pixels, through the centres of
# the foreground pixels along them, or along the sides themselves.
Through = Literal["middles", "centres", "corners"]

MOST_PAIRS = 1 << 22  # of points that are compared

# (y, x) of the directions east, south, west, north: each the right turn of the one before.
_WAYS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
# (x, y) from a pixel's top left corner to where its side begins that is walked each way, with the pixel on the right.
_CORNERS = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])


@dataclass(frozen=True)
class Part:
    """One connected part of a mask: the closed line around it, and those around its holes, [n,2] each: x, y.

    pixels: how many it has.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]
    pixels: int

    @property
    def lines(self) -> list[np.ndarray]:
        return [self.outer, *self.holes]


def parts(mask: np.ndarray, through: Through) -> list[Part]:
    """A mask's parts, the largest first; pixels that meet at a corner are of one part, or of two for "corners".

    mask: bool [H,W]. Lines run clockwise around parts, the other way around holes; points on a straight line are left
    out. float64, in pixels, the mask's top left corner at 0, 0, so that a pixel's centre lies at halves. By the
    even-odd rule, lines through middles and along corners hold the centres of the mask's pixels and of no others;
    lines through centres do so for readers who count a polygon's own line as inside. Lines along corners touch neither
    themselves nor each other but in single points, as GIS tools ask.
    """
    loops = _walk(mask, diagonal=through != "corners")
    if through == "corners":
        loops = [piece for loop in loops for piece in _untouched(loop)]
    outers = sorted((loop for loop in loops if loop.area > 0), key=lambda loop: -loop.area)
    holes: list[list[_Loop]] = [[] for _ in outers]
    for loop in loops:
        if loop.area < 0:
            # Of the parts around it the smallest is its own.
            own = max(i for i, outer in enumerate(outers) if outer.holds(loop))
            holes[own].append(loop)
    return [
        Part(
            outer.line(through),
            tuple(hole.line(through) for hole in inside),
            round(sum(loop.area for loop in (outer, *inside)) / 2),
        )
        for outer, inside in zip(outers, holes, strict=True)
    ]


def tie(lines: Sequence[np.ndarray]) -> np.ndarray:
    """Closed lines as one, the others tied to the first, one after the other, by there-and-back bridges of no width.

    A bridge joins the points nearest to each other. Under the even-odd rule the same points are inside. lines: of
    [n,2], at least one.
    """
    first, *others = lines
    for line in others:
        first = _tied(first, line, *_nearest(first, line))
    return first


def one_line(found: Sequence[Part]) -> tuple[np.ndarray, list[Part]]:
    """Parts, the largest first, as one closed line, for formats that have one line an object; the parts it leaves out.

    Readers count the line itself as inside, bridges too, so a part is left out whose bridge is longer than it is large.
    """
    line, lost = tie(found[0].lines), []
    for part in found[1:]:
        other = tie(part.lines)
        here, there = _nearest(line, other)
        if np.abs(line[here] - other[there]).max() - 1 < part.pixels:
            line = _tied(line, other, here, there)
        else:
            lost.append(part)
    return line, lost


def three_points(line: np.ndarray) -> np.ndarray:
    """The line of a mask of one pixel or one straight row of pixels with a point more, or two, in the same pixels: what
    has fewer than three is no polygon to most readers."""
    if len(line) == 1:
        line = np.concatenate([line, line + np.array([0.125, 0])])
    if len(line) == 2:
        along = line[1] - line[0]
        aside = np.array([-along[1], along[0]]) / np.abs(along).max()
        line = np.concatenate([line, line[1:] + 0.125 * aside])
    return line


class _Loop:
    """A closed walk along the sides between foreground (on the right) and background.

    way: which way each side is walked. at: int [n,2], x, y of the foreground pixel it belongs to.
    """

    def __init__(self, way: np.ndarray, at: np.ndarray) -> None:
        self.way, self.at = way, at
        self.corners = at + _CORNERS[way]
        self.area = _twice_area(self.corners)

    def line(self, through: Through) -> np.ndarray:
        if through == "corners":
            return _turns(self.corners).astype(float)
        if through == "middles":
            return _turns(2 * self.corners + _WAYS[self.way][:, ::-1]) / 2
        return _turns(self.at) + 0.5

    def holds(self, other: _Loop) -> bool:
        """Whether the foreground pixel where another loop begins lies within this one."""
        x, y = other.at[0]
        across = (self.corners[:, 1] == y) & (self.way == 1) | (self.corners[:, 1] == y + 1) & (self.way == 3)
        return bool(np.count_nonzero(across & (self.corners[:, 0] <= x)) % 2)


def _walk(mask: np.ndarray, diagonal: bool) -> list[_Loop]:
    """The loops of a mask, bool [H,W]. diagonal: whether pixels that meet at a corner are of one part."""
    inside = np.pad(np.asarray(mask, bool), 1)
    width = inside.shape[1]
    flat = inside.reshape(-1)
    steps = _WAYS @ (width, 1)
    # A side is its foreground pixel and the way it is walked, which has the background pixel on its left.
    # The margin around the mask is background, so that what wraps around is too.
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
    return [_Loop(ways[loop], at[loop]) for loop in _cycles(follower.tolist())]


def _cycles(follower: list[int]) -> list[list[int]]:
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


def _untouched(loop: _Loop) -> list[_Loop]:
    """A loop cut into those that come to no corner twice."""
    keys = loop.corners @ (1 << 32, 1)
    if len(np.unique(keys)) == len(keys):
        return [loop]
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
    return [_Loop(loop.way[piece], loop.at[piece]) for piece in (*pieces, path) if piece]


def _turns(line: np.ndarray) -> np.ndarray:
    """A closed line without repeated points and without those at which it goes straight on."""
    came = line - np.concatenate([line[-1:], line[:-1]])
    moved = came.any(axis=1)
    if not moved.any():
        return line[:1]
    line, came = np.compress(moved, line, axis=0), np.compress(moved, came, axis=0)
    goes = np.concatenate([came[1:], came[:1]])
    turns = (came[:, 0] * goes[:, 1] != came[:, 1] * goes[:, 0]) | ((came * goes).sum(axis=1) < 0)
    return np.compress(turns, line, axis=0)


def _tied(line: np.ndarray, other: np.ndarray, here: int, there: int) -> np.ndarray:
    return np.concatenate([line[: here + 1], other[there:], other[: there + 1], line[here:]])


def _nearest(line: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Which point of each is nearest to the other line; of very long lines only nearly so."""
    if len(line) * len(other) > MOST_PAIRS:
        here = int(((line - other.mean(axis=0)) ** 2).sum(axis=1).argmin())
        return here, int(((other - line[here]) ** 2).sum(axis=1).argmin())
    apart = (line[:, None, 0] - other[None, :, 0]) ** 2 + (line[:, None, 1] - other[None, :, 1]) ** 2
    return divmod(int(apart.argmin()), len(other))


def _twice_area(line: np.ndarray) -> float:
    x, y = line.T
    return float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])
