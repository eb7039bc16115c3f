"""How far a long run is: a bar on a terminal, a line a minute in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LOG_SECONDS = 60.0


class Progress:
    """Progress on standard error: done, rate and time left.

    what: such as "labelling". total and done: units in all, and already done before this run. show: False is
    silent.
    """

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "boxes", show: bool = True) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._first = self._done = done
        self._began = self._said = time.monotonic()
        self._show = show and total > done
        self._bar = _bar(what, total, done, unit) if self._show and sys.stderr.isatty() else None

    def advance(self, steps: int) -> None:
        """So many more units are done."""
        self._done += steps
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, completed=self._done, rate=f"{self._rate():.1f}")
        elif self._show and time.monotonic() - self._said >= LOG_SECONDS:
            self._said = time.monotonic()
            left = (self._total - self._done) / max(self._rate(), 1e-9)
            print(
                f"{self._what}: {self._done}/{self._total} {self._unit}, {self._rate():.1f} {self._unit}/s, "
                f"{left / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(what: str, total: int, done: int, unit: str) -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]}} {unit}/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=60,
    )
    bar.add_task(what, total=total, completed=done, rate="-")
    return bar
