"""Measurements in cells: each is made in a process of its own and kept at once, so that a run that was stopped goes on.

How `headline.py` and `scaling.py` measure. The process that is started writes its figures, as JSON, to the file that it
is given as `--out`, or {"error": why there are none}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import save

Figures = dict[str, Any]
BEGAN = "CELL_BEGAN"  # in the environment of a cell's process: when it was started


class Cells:
    """The cells of one measurement, kept in one JSON file.

    facts: what the measurement is about; a file with other facts is another measurement, and is not gone on with.
    seconds: after how long no further cell is begun.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], seconds: float | None = None, fresh: bool = False) -> None:
        self.path, self.facts = path, json.loads(json.dumps(facts))
        self.cells: dict[str, Figures] = {}
        self.failed: dict[str, str] = {}
        self._until = None if seconds is None else time.monotonic() + seconds
        if path.exists() and not fresh:
            before = read(path)
            others = [name for name, value in self.facts.items() if before.get(name) != value]
            if others:
                sys.exit(
                    f"error: {path}: holds a measurement with other {', '.join(others)}; give --fresh to replace it, "
                    "or another --json"
                )
            self.cells = before["cells"]

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and time.monotonic() > self._until

    def measure(self, name: str, command: Sequence[str | Path], limit: float) -> Figures | None:
        """A cell's figures: those that are there, or those that the command finds; None if there are none.

        limit: seconds that the command may take. Why it failed is kept in `failed`, and with the cells. A cell that
        failed is tried again by the next run, not by this one.
        """
        if name in self.cells:
            return self.cells[name]
        if name in self.failed or self.late:
            return None
        found = run(command, limit)
        if "error" in found:
            self.failed[name] = found["error"]
            print(f"{name}: {found['error']}", flush=True)
        else:
            self.cells[name] = found
            print(
                f"{name}: {json.dumps({k: v for k, v in found.items() if not isinstance(v, (dict, list))})}", flush=True
            )
        self.save()
        return self.cells.get(name)

    def save(self, **more: Any) -> None:
        """Write what there is."""
        save(self.path, {**self.facts, "cells": self.cells, "failed": self.failed, **more})


def read(path: Path) -> dict[str, Any]:
    """A file of `Cells`; ends the program with one line if it is none."""
    try:
        found: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: cannot be read ({error}); delete it, or give --fresh")
    if not isinstance(found, dict) or not isinstance(found.get("cells"), dict):
        sys.exit(f"error: {path}: not a file of this measurement; give another --json")
    return found


def run(command: Sequence[str | Path], limit: float) -> Figures:
    """The figures that a command writes to `--out`, or {"error": the reason}; `load`: what else ran when it began."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "figures.json"
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        words, environment = [*map(str, command), "--out", str(out)], {**os.environ, BEGAN: str(time.time())}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
            try:
                said, complained = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                return {"error": f"not finished after {limit:.0f} s"}
            finally:  # with whatever it started, such as compilers
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if out.exists():
            return {**json.loads(out.read_text()), "load": load}
        last = (complained.strip() or said.strip() or "it said nothing").splitlines()[-1]
        return {"error": f"ended with {process.returncode}: {last[:300]}"}


def seconds_since_start() -> float:
    """Since the process of this cell was started, imports and all."""
    return time.time() - float(os.environ[BEGAN])


def peak_mb() -> float:
    """Most memory that this process had so far, resident, in MB of 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone: getrusage also counts what the process was before its exec
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def write_between(paper: Path, mark: str, text: str) -> None:
    """Put a table between the lines `<!-- MARK -->` and `<!-- /MARK -->` of a paper."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
    content = paper.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(f"error: {paper}: has no lines {begin.strip()} and {end.strip()}, between which the table goes")
    paper.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def line(values: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(values) + " |"


def figure(value: float) -> str:
    """Three digits, without powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
