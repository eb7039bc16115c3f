"""How far a build is, from the phases TensorRT reports, and a way to stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

from mal_trt.artifacts.flavor import Flavor


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Monitor:
    """Phases nest and each counts its own steps; the share done is that of the outermost, its open step refined.

    show: called with the share done, 0 to 1, never smaller than before. It is called by TensorRT's threads.
    """

    def __init__(self, show: Callable[[float], None]) -> None:
        self._phases: dict[str, _Phase] = {}
        self._show, self._share = show, 0.0
        self._lock = Lock()
        self.stop = Event()

    def attach(self, flavor: Flavor) -> Any:
        """The library's monitor object; keep it as long as the build runs."""

        def step(_: Any, name: str, index: int) -> bool:
            self._change(name, done=index + 1)
            return not self.stop.is_set()  # False ends the build

        return flavor.subclass(
            "IProgressMonitor",
            phase_start=lambda _, name, parent, steps: self._change(name, _Phase(parent, steps)),
            step_complete=step,
            phase_finish=lambda _, name: self._change(name, finished=True),
        )

    def _change(self, name: str, new: _Phase | None = None, done: int = 0, finished: bool = False) -> None:
        with self._lock:
            if new is not None:
                self._phases[name] = new
            elif finished:
                self._phases.pop(name, None)
            elif name in self._phases:
                self._phases[name].done = done
            share = max((self._of(key) for key, p in self._phases.items() if p.parent is None), default=self._share)
            self._share = max(self._share, min(share, 1.0))
            self._show(self._share)

    def _of(self, name: str) -> float:
        """Share of a phase that is done; several phases inside one run side by side."""
        phase = self._phases[name]
        inside = [self._of(key) for key, p in self._phases.items() if p.parent == name and key != name]
        part = sum(inside) / len(inside) if inside else 0.0
        return (phase.done + part) / max(phase.steps, 1)
