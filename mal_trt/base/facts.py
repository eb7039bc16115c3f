"""What decides the outcome of a run, by name: that which a run that goes on must have in common with its beginning."""

from __future__ import annotations

from collections.abc import Mapping

ABSENT = "not given"


def changed(begun: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which facts differ and how, in words; those of the beginning first."""
    return [
        f"{name} was {begun.get(name, ABSENT)}, now {now.get(name, ABSENT)}"
        for name in {**begun, **now}
        if begun.get(name) != now.get(name)
    ]
