"""A mask as pixels of a window of its picture; as text it is a run length encoding, `geometry.rle`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box around the pixels of a mask [rows, columns] that are set, XYXY, half-open; None without one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if rows.size else None


@dataclass(frozen=True)
class LocalMask:
    """A mask in a window of the picture; every pixel outside the window is background.

    x0, y0: the window's top left corner, picture pixels. mask: bool [rows, columns].
    """

    x0: int
    y0: int
    mask: np.ndarray

    @property
    def area(self) -> int:
        """Foreground pixels."""
        return int(np.count_nonzero(self.mask))

    def full(self, height: int, width: int) -> np.ndarray:
        """The mask on the whole picture, bool [height, width]."""
        canvas = np.zeros((height, width), bool)
        rows, columns = self.mask.shape
        canvas[self.y0 : self.y0 + rows, self.x0 : self.x0 + columns] = self.mask
        return canvas
