"""What a label run did: for Python, the screen and the run record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Summary:
    """What a label run did.

    - `total`: records in the document; `labelled` and all of `skipped` make it up. `skipped`: records by reason.
    - `resumed`: how many of the labelled ones an earlier, stopped run had done.
    - `seconds`: how long this run labelled. `provider`: what really ran the model. `precision`: in which
      it computed; that of the file, or half precision where OpenVINO ran an FP32 one.
    - `skipped_list`: the file that names each skipped record; None if there are none.
    - `notes`: what should be known of how the model ran, such as that CUDA graphs could not be used, and of the boxes.
    - `losses`: what each format could not hold.
    - `finished_before`: nothing was done, since a run with the same inputs had finished.
    - `read`: what was read, and how many pictures were found under another name.
    """

    total: int
    labelled: int
    skipped: dict[str, int]
    resumed: int
    seconds: float
    provider: str
    model: Path
    out: Path
    skipped_list: Path | None
    notes: tuple[str, ...] = ()
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished_before: bool = False
    read: str = ""
    precision: str = ""

    @property
    def boxes_per_second(self) -> float:
        """Boxes labelled by this run, per second."""
        return (self.labelled - self.resumed) / self.seconds if self.seconds else 0.0

    @property
    def warning(self) -> str:
        """What must not be overlooked: more than half of the boxes have no mask."""
        return most_missing(self.total, self.skipped, "have NO mask")


def most_missing(total: int, skipped: Mapping[str, int], what: str) -> str:
    """A warning that must not be overlooked, where more than half of the boxes were skipped; else nothing. what: how
    the sentence goes on, such as "have NO mask"."""
    left = sum(skipped.values())
    if left * 2 <= total:
        return ""
    reason = max(skipped, key=lambda name: skipped[name])
    return f"WARNING: {left:,} of {total:,} boxes {what}, most because: {reason}"
