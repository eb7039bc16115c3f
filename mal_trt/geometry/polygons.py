"""Masks as polygons: closed lines around a mask's parts and holes, through the points that its readers expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mal_trt.geometry.bridges import join, join_contours, join_lines, nearest
from mal_trt.geometry.contours import Contour, find_contours

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
        """All lines as one; see `join_lines`."""
        return join_lines(self.lines) if self.bridged is None else self.bridged


def parts(mask: np.ndarray, through: Through) -> list[Part]:
    """A mask's parts, the largest first; pixels that meet at a corner are of one part, or of two for "corners".

    mask: bool [H,W]. Lines run clockwise around parts, the other way around holes; points on a straight line are left
    out. float64, in pixels, the mask's top left corner at 0, 0, so that a pixel's centre lies at halves. By the
    even-odd rule lines along corners hold the centres of the mask's pixels and of no others; lines through centres do
    so for readers who count a polygon's own line as inside. Lines along corners touch neither themselves nor each other
    but in single points, as GIS tools ask.
    """
    contours = find_contours(mask, diagonal=through == "centres")
    if through == "corners":
        contours = [piece for contour in contours for piece in contour.split()]
    outers = sorted((one for one in contours if one.area > 0), key=lambda one: -one.area)
    holes: list[list[Contour]] = [[] for _ in outers]
    for contour in contours:
        if contour.area < 0:
            # Of the parts around it the smallest is its own.
            own = max(i for i, outer in enumerate(outers) if outer.holds(contour))
            holes[own].append(contour)
    found = []
    for outer, inside in zip(outers, holes, strict=True):
        lines = [_turns(_points(contour, through)) for contour in (outer, *inside)]
        pixels = sum(contour.area for contour in (outer, *inside)) // 2
        whole = _turns(join_contours(mask, [outer, *inside]) + 0.5) if inside and through == "centres" else None
        found.append(Part(lines[0], tuple(lines[1:]), pixels, whole))
    return found


def single_line(found: Sequence[Part]) -> tuple[np.ndarray, list[Part]]:
    """Parts, the largest first, as one closed line, for formats that have one line an object; and the parts left out.

    Readers count the line and its bridges as inside, so a part is left out whose bridge has more pixels than itself.
    """
    line, lost = found[0].line, []
    for part in found[1:]:
        other = part.line
        here, there = nearest(line, other)
        if np.abs(line[here] - other[there]).max() - 1 < part.pixels:
            line = join(line, other, here, there)
        else:
            lost.append(part)
    return line, lost


def three_points(line: np.ndarray) -> np.ndarray:
    """A line of one or two points with more of them, up to three, within the same pixels: to most readers fewer are no
    polygon."""
    if len(line) == 1:
        line = np.concatenate([line, line + np.array([0.125, 0])])
    if len(line) == 2:
        along = line[1] - line[0]
        aside = np.array([-along[1], along[0]]) / np.abs(along).max()
        line = np.concatenate([line, line[1:] + 0.125 * aside])
    return line


def _points(contour: Contour, through: Through) -> np.ndarray:
    return contour.corners.astype(float) if through == "corners" else contour.at + 0.5


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
