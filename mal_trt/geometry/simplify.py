"""Closed lines with fewer points, by Douglas and Peucker: every point stays within a given distance of the line."""

from __future__ import annotations

import numpy as np


def simplify(line: np.ndarray, pixels: float) -> np.ndarray:
    """A closed line, [n,2], with the points left out that lie at most `pixels` from the result. As few as two may
    remain."""
    if len(line) < 4 or not pixels:
        return line
    far = int(((line - line[0]) ** 2).sum(axis=1).argmax())
    ring = np.concatenate([line, line[:1]])
    keep = np.zeros(len(ring), bool)
    keep[[0, far]] = True
    spans = [(0, far), (far, len(line))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        apart = _distances(ring[first + 1 : last], ring[first], ring[last])
        worst = int(apart.argmax())
        if apart[worst] > pixels:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return ring[:-1][keep[:-1]]


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distances of points, [n,2], from the segment between two others, [n]."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    away: np.ndarray = np.hypot(*(points - start - share[:, None] * along).T)
    return away
