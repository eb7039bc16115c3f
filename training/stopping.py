"""When a run stops early: after a number of figures in a row that are no better than the best one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Stopping:
    """best: the highest figure so far, at step `step`; None before the first. since: figures after it."""

    patience: int | None
    best: float | None = None
    step: int = 0
    since: int = 0

    def judge(self, value: float, step: int) -> bool:
        """Take a figure, higher being better; whether it is the best so far. Of equals the first is."""
        if self.best is None or value > self.best:
            self.best, self.step, self.since = value, step, 0
            return True
        self.since += 1
        return False

    @property
    def over(self) -> bool:
        """Whether the run has had its patience."""
        return self.patience is not None and self.since >= self.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {name: value for name, value in asdict(self).items() if name != "patience"}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.step, self.since = state["best"], int(state["step"]), int(state["since"])
