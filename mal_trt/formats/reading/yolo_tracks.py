"""Track numbers at the end of YOLO lines, where trackers write them: `class cx cy w h id`, `class cx cy w h score id`.

A line with a score and a track number has as many numbers as a polygon of three points. What tells them apart is that
a track number is whole and at least 1, and that no share of a picture is above 1. Number 1 alone may be either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.formats.reading.text import read_text

OUTSIDE = 0.01  # shares that a tracker's box may reach outside its picture


class Tracks:
    """Which lines of a data set end in a track number. files: its labels, read again only where a line leaves doubt."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.found = 0
        self._files = files

    def take(self, shares: list[float]) -> int | None:
        """The track number of a line whose numbers behind the class these are, taken off them; None if it has none."""
        if not _may_be(shares) or (shares[-1] < 2 and not self._at_one(shares)):
            return None
        self.found += 1
        return int(shares.pop())

    def _at_one(self, shares: list[float]) -> bool:
        certain, alike = self._others
        return certain or (alike and _is_scored_box(shares))

    @cached_property
    def _others(self) -> tuple[bool, bool]:
        """Whether a line of the data set ends in a track number for certain, and whether all that are longer than a box
        look like a box with a score and number 1."""
        alike = True
        for shares in self._long_lines():
            if _may_be(shares) and shares[-1] >= 2:
                return True, True
            alike = alike and _may_be(shares) and _is_scored_box(shares)
        return False, alike

    def _long_lines(self) -> Iterator[list[float]]:
        for file in self._files:
            try:
                lines = read_text(file).splitlines()
            except InputError:  # who reads it as a label says what is wrong
                continue
            for line in lines:
                try:
                    shares = [float(word) for word in line.split()[1:]]
                except ValueError:
                    continue
                if len(shares) > 4:
                    yield shares


def _may_be(shares: list[float]) -> bool:
    """Whether the last number may be a track's: whole, behind shares of the picture."""
    return len(shares) > 4 and shares[-1] >= 1 and shares[-1].is_integer() and all(0 <= v <= 1 for v in shares[:-1])


def _is_scored_box(shares: list[float]) -> bool:
    if len(shares) != 6:
        return False
    ends = [centre + sign * side / 2 for centre, side in zip(shares[:2], shares[2:4], strict=True) for sign in (-1, 1)]
    return min(shares[2:4]) > 0 and all(-OUTSIDE <= end <= 1 + OUTSIDE for end in ends)
