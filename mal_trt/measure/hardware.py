"""What a measurement was taken on: processor, GPU, power mode, versions. Whether all of it works, `doctor` says."""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal_trt.base.gpu import find_gpus, platform_tag
from mal_trt.base.processor import usable_cores
from mal_trt.base.versions import library_versions

SECONDS = 10  # for a program to answer
NVIDIA_SMI = {
    "driver": "driver_version",
    "pstate": "pstate",
    "power_limit_w": "power.limit",
    "sm_clock_mhz": "clocks.sm",
    "max_sm_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
}
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")


def hardware() -> dict[str, Any]:
    """Facts as JSON-ready values.

    cpu, cores (that this process may use), memory_bytes, load (mean of the last minute: what else ran), platform,
    python, libraries (name -> version of those installed), gpus, cuda (newest the driver runs) and power: what
    nvpmodel, nvidia-smi (a list, one for each GPU) and the processor's governor say.
    """
    machine = find_gpus()
    facts = {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_bytes": _memory(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "platform": platform_tag(),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "gpus": [
            {"name": gpu.name, "compute_capability": gpu.compute_capability, "bytes": gpu.total_bytes}
            for gpu in machine.gpus
        ],
        "cuda": machine.cuda,
        "power": power(),
    }
    return {name: value for name, value in facts.items() if value not in (None, [], {})}


def one_line(facts: dict[str, Any]) -> str:
    """Processor, GPUs and power mode for people."""
    parts = [f"{facts['cpu']}, {facts['cores']} cores"]
    parts += [f"{gpu['name']} (compute capability {gpu['compute_capability']})" for gpu in facts.get("gpus", [])]
    mode = facts.get("power", {}).get("nvpmodel")
    return "; ".join(parts + ([mode] if mode else []))


def power() -> dict[str, Any]:
    """What limits the clocks, as far as this machine tells."""
    found: dict[str, Any] = {}
    if mode := said("nvpmodel", "-q"):
        found["nvpmodel"] = ", ".join(line.strip() for line in mode.splitlines() if line.strip())
    asked = said("nvidia-smi", f"--query-gpu={','.join(NVIDIA_SMI.values())}", "--format=csv,noheader,nounits")
    if rows := [
        _gpu(row) for row in csv.reader(asked.splitlines(), skipinitialspace=True) if len(row) == len(NVIDIA_SMI)
    ]:
        found["nvidia_smi"] = rows
    with suppress(OSError):
        found["governor"] = GOVERNOR.read_text().strip()
    return found


def _gpu(row: list[str]) -> dict[str, Any]:
    """One line of nvidia-smi; `[N/A]` and its like are left out."""
    values: dict[str, Any] = {}
    for name, text in zip(NVIDIA_SMI, row, strict=True):
        if text.startswith("["):
            continue
        try:
            values[name] = text if name == "driver" else float(text)
        except ValueError:
            values[name] = text
    return values


def said(*command: str) -> str:
    """What a program prints; "" where there is none, it fails or does not end."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _cpu() -> str:
    found = _lines(CPUINFO, "model name") or _lines(CPUINFO, "Model")
    return found[0] if found else platform.processor() or platform.machine()


def _memory() -> int | None:
    found = _lines(MEMINFO, "MemTotal")
    return int(found[0].split()[0]) * 1024 if found else None


def _lines(path: Path, name: str) -> list[str]:
    """Values of `name : value` lines."""
    try:
        text = path.read_text()
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for key, _, value in pairs if key.strip() == name]
