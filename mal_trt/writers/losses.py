"""What a format could not hold of the masks, counted while they are written; and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass
class FormatLoss:
    """Counts of one output.

    masks: written. empty: masks without a pixel, for which the format has nothing. left_out: masks for which it has no
    room. parts, holes: of masks, that were left out or filled. hidden_pixels: under a mask drawn over them. compared:
    masks read back as the format's readers do; iou_sum, iou_worst: IoU of those with the exact masks; wrong_pixels,
    wrong_most: pixels that differ, in all and of one mask.
    """

    masks: int = 0
    empty: int = 0
    left_out: int = 0
    parts: int = 0
    holes: int = 0
    hidden_pixels: int = 0
    compared: int = 0
    iou_sum: float = 0.0
    iou_worst: float = 1.0
    wrong_pixels: int = 0
    wrong_most: int = 0

    def compare(self, exact: np.ndarray, read: np.ndarray) -> None:
        """Count a mask that was read back. Both bool, of one shape."""
        both, either = int(np.count_nonzero(exact & read)), int(np.count_nonzero(exact | read))
        iou, wrong = both / either if either else 1.0, either - both
        self.compared += 1
        self.iou_sum += iou
        self.iou_worst = min(self.iou_worst, iou)
        self.wrong_pixels += wrong
        self.wrong_most = max(self.wrong_most, wrong)

    def figures(self) -> dict[str, Any]:
        """Those that say something, as JSON holds them."""
        values = {k: v for k, v in asdict(self).items() if v and not k.startswith(("iou", "compared"))}
        if self.compared:
            values["iou_mean"] = round(self.iou_sum / self.compared, 4)
            values["iou_worst"] = round(self.iou_worst, 4)
        return values


def describe(format: str, figures: Mapping[str, Any]) -> str:
    """One line for people; empty where nothing was lost."""
    counted = (
        ("left_out", "masks left out", "mask left out"),
        ("empty", "masks without a pixel left out", "mask without a pixel left out"),
        ("parts", "parts left out", "part left out"),
        ("holes", "holes filled", "hole filled"),
        ("hidden_pixels", "pixels hidden under other masks", "pixel hidden under another mask"),
    )
    words = [f"{figures[key]} {one if figures[key] == 1 else many}" for key, many, one in counted if figures.get(key)]
    said = [", ".join(words)] if words else []
    if figures.get("wrong_pixels"):
        said.append(
            f"read back, the masks have an IoU of {figures['iou_mean']:.4f} with the exact ones on the mean, "
            f"{figures['iou_worst']:.4f} at worst ({figures['wrong_pixels'] / figures['masks']:.1f} pixels differ "
            f"on the mean, {figures['wrong_most']} at most)"
        )
    return f"{format}: {'; '.join(said)}" if said else ""
