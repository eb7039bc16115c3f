"""What a measurement ran on, for the JSON it writes."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def hardware() -> str:
    """Processor, cores this process may use, memory, Python: `Xeon ..., 2 cores, 8 GB, Python 3.11`."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = (x for x in cpuinfo.read_text().splitlines() if x.startswith("model name"))
        cpu = next((x.split(":", 1)[1].strip() for x in named), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GB"
    return f"{cpu}, {cores} cores{memory}, Python {platform.python_version()}"
