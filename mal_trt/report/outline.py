"""The outline of a mask as an SVG path, in half pixels of its crop."""

from __future__ import annotations

import numpy as np

from mal_trt.geometry.contours import find_contours

HALVES = 2  # of these units a pixel has


def path_of(mask: np.ndarray) -> str:
    """The `d` of a path around a mask, bool [H,W]; its lines go through the middles of the sides of pixels, so that
    stairs of one pixel become a straight line. To be filled by the even-odd rule; empty for an empty mask."""
    pieces = []
    for contour in find_contours(mask, diagonal=True):
        corners = contour.corners
        middles = corners + np.concatenate([corners[1:], corners[:1]])
        steps = middles - np.concatenate([middles[-1:], middles[:-1]])
        ahead = np.concatenate([steps[1:], steps[:1]])
        line = np.compress((steps != ahead).any(axis=1), middles, axis=0)
        moves = np.diff(line, axis=0).reshape(-1).tolist()
        text = "".join(f"{'' if move < 0 else ' '}{move}" for move in moves)
        pieces.append(f"M{line[0][0]} {line[0][1]}l{text.lstrip()}z")
    return "".join(pieces)
