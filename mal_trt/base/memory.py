"""How much memory a machine has left, as Linux counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Memory:
    """Bytes. available: what programs can still get without swapping, caches counted that would be given back;
    swap_free: what can be moved out to disk. None where the system does not say it."""

    available: int | None
    swap_free: int | None


def read_memory() -> Memory:
    """Of the processor, which on a Jetson is the GPU's too."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return Memory(None, None)
    found = {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines) if value}
    return Memory(found.get("MemAvailable"), found.get("SwapFree"))
