"""Watts while something runs, from a program of NVIDIA's that reports them ten times a second."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import fmean
from threading import Thread
from types import TracebackType

from mal_trt.base.gpu import VISIBLE

INTERVAL_MS = 100
# `VDD_IN 4970mW/4980mW`: a Jetson's rail, its power now and on average.
RAIL = re.compile(r"\b((?:VDD|VIN|POM|SYS)\w*) (\d+)(?:mW)?/\d+")
# Rails that stand for the whole module; on an AGX Orin, which has none, the sum of those that feed it.
WHOLE = ("VDD_IN", "VIN", "POM_5V_IN")
AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")


class PowerMeter:
    """Runs the program from `with` on, and keeps what it reports. title: what is measured. gpu_only: not the processor.

    A program that ends, or says something else, gives no watts.
    """

    def __init__(
        self, command: list[str], read: Callable[[str], float | None], title: str, gpu_only: bool = False
    ) -> None:
        self.title, self.gpu_only = title, gpu_only
        self._command, self._read = command, read
        self._samples: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> PowerMeter:
        with suppress(OSError):
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
            )
            Thread(target=self._listen, args=(self._process,), name="power", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def since(self, began: float) -> float | None:
        """Mean watts since a time of `time.perf_counter`; None if nothing was reported in between."""
        found = [watts for at, watts in list(self._samples) if at >= began]
        return fmean(found) if found else None

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if (watts := self._read(line)) is not None:
                self._samples.append((time.perf_counter(), watts))


def open_meter(device: str) -> PowerMeter | None:
    """What this machine has for it: tegrastats of a Jetson, or nvidia-smi, which knows a GPU's watts alone."""
    if (program := shutil.which("tegrastats")) is not None:
        return PowerMeter([program, "--interval", str(INTERVAL_MS)], tegrastats_watts, "tegrastats, the whole module")
    program = shutil.which("nvidia-smi")
    if program is None or device == "cpu":
        return None
    query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits", f"--loop-ms={INTERVAL_MS}"]
    return PowerMeter([program, "-i", _gpu(device), *query], nvidia_smi_watts, "nvidia-smi, the GPU alone", True)


def tegrastats_watts(line: str) -> float | None:
    """Watts of the whole module in a line of tegrastats; None if it does not say them."""
    rails = {name: int(milliwatts) / 1000 for name, milliwatts in RAIL.findall(line)}
    for name in WHOLE:
        if name in rails:
            return rails[name]
    return sum(rails[name] for name in AGX_ORIN) if all(name in rails for name in AGX_ORIN) else None


def nvidia_smi_watts(line: str) -> float | None:
    """Watts in a line of nvidia-smi; None for `[N/A]` and its like."""
    try:
        return float(line)
    except ValueError:
        return None


def _gpu(device: str) -> str:
    """The GPU as nvidia-smi numbers it, which does not heed CUDA_VISIBLE_DEVICES."""
    number = int(device.partition(":")[2] or 0) if device.partition(":")[2].isdecimal() or ":" not in device else 0
    visible = [part.strip() for part in os.environ.get(VISIBLE, "").split(",") if part.strip()]
    return visible[number] if number < len(visible) else str(number)
