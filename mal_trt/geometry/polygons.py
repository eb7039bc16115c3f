"""Masks as polygons: closed lines around a mask's parts and holes, through the points that its readers expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mal_trt.geometry.loops import Loop, walk
from mal_trt.geometry.tours import bridged, nearest, tie, tied

# Where a line runs: through the centres of the foreground pixels beside the background, or along their sides.
Through = Literal["centres", "corners"]


@dataclass(frozen=True)
class Part:
    """One connected part of a mask: the closed line around it, and those around its holes, [n,2] each: x, y.

    pixels: how many it has. bridged: all lines as one, where bridges are known that go through no hole.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]
    pixels: int
    bridged: np.ndarray | None = None

    @property
    def lines(self) -> list[np.ndarray]:
        return [self.outer, *self.holes]

    @property
    def line(self) -> np.ndarray:
        """All lines as one; see `tie`."""
        return tie(self.lines) if self.bridged is None else self.bridged


def parts(mask: np.ndarray, through: Through) -> list[Part]:
    """A mask's parts, the largest first; pixels that meet at a corner are of one part, or of two for "corners".

    mask: bool [H,W]. Lines run clockwise around parts, the other way around holes; points on a straight line are left
    out. float64, in pixels, the mask's top left corner at 0, 0, so that a pixel's centre lies at halves. By the
    even-odd rule lines along corners hold the centres of the mask's pixels and of no others; lines through centres do
    so for readers who count a polygon's own line as inside. Lines along corners touch neither themselves nor each other
    but in single points, as GIS tools ask.
    """
    loops = walk(mask, diagonal=through == "centres")
    if through == "corners":
        loops = [piece for loop in loops for piece in loop.untouched()]
    outers = sorted((loop for loop in loops if loop.area > 0), key=lambda loop: -loop.area)
    holes: list[list[Loop]] = [[] for _ in outers]
    for loop in loops:
        if loop.area < 0:
            # Of the parts around it the smallest is its own.
            own = max(i for i, outer in enumerate(outers) if outer.holds(loop))
            holes[own].append(loop)
    found = []
    for outer, inside in zip(outers, holes, strict=True):
        lines = [_turns(_points(loop, through)) for loop in (outer, *inside)]
        pixels = sum(loop.area for loop in (outer, *inside)) // 2
        whole = _turns(bridged(mask, [outer, *inside]) + 0.5) if inside and through == "centres" else None
        found.append(Part(lines[0], tuple(lines[1:]), pixels, whole))
    return found


def one_line(found: Sequence[Part]) -> tuple[np.ndarray, list[Part]]:
    """Parts, the largest first, as one closed line, for formats that have one line an object; the parts it leaves out.

    Readers count the line itself as inside, bridges too, so a part is left out whose bridge is longer than it is large.
    """
    line, lost = found[0].line, []
    for part in found[1:]:
        other = part.line
        here, there = nearest(line, other)
        if np.abs(line[here] - other[there]).max() - 1 < part.pixels:
            line = tied(line, other, here, there)
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


def _points(loop: Loop, through: Through) -> np.ndarray:
    return loop.corners.astype(float) if through == "corners" else loop.at + 0.5


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
