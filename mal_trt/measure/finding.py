"""What `doctor` finds, one thing at a time."""

from __future__ import annotations

from dataclasses import dataclass

OK, MISSING, WARNING = "ok", "missing", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. status: "ok", "missing" or "warning"; advice: what to do, "" where there is nothing."""

    name: str
    status: str
    value: str
    advice: str = ""
