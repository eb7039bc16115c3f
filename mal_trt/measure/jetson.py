"""What `doctor` says of a Jetson: release, power mode, clocks, the memory that processor and GPU share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mal_trt.artifacts.flavor import OLDEST, version_numbers
from mal_trt.base.memory import Memory
from mal_trt.measure.finding import OK, WARNING, Finding

# L4T release of a Jetson -> JetPack, TensorRT it brings.
JETPACKS = (((39,), "7.2", "10.16"), ((38,), "7.0", "10.13"), ((36, 4), "6.1", "10.3"), ((36,), "6.0", "8.6"))
RELEASE, MODES, CLOCKS = "etc/nv_tegra_release", "etc/nvpmodel.conf", "sys/class/devfreq"
MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\w+)\s*>")
# `GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000`, in Hz.
SHOWN = re.compile(r"^GPU MinFreq=(\d+) MaxFreq=(\d+) CurrentFreq=(\d+)", re.M)
GPU = re.compile(r"gpu|\.g[apv]\d+b")  # names of a GPU in devfreq, such as 17000000.gpu
LEAST_MEMORY = 2 << 30


def examine_jetson(root: Path, said: Callable[..., str], memory: Memory) -> Iterator[Finding]:
    """Findings on a Jetson, none elsewhere. root: of the file system. said: what a program prints, "" if it cannot."""
    release = root / RELEASE
    if not release.exists():
        return
    yield jetpack(release.read_text())
    yield from _power_mode(root, said)
    yield from _clocks(root, said)
    yield from _memory(memory)


def jetpack(text: str) -> Finding:
    """JetPack of a Jetson, from /etc/nv_tegra_release: `# R36 (release), REVISION: 4.0, ...`."""
    found = re.search(r"R(\d+).*REVISION:\s*(\d+)", text)
    if found is None:
        return Finding("JetPack", WARNING, "a release that is not known", f"expected /{RELEASE} to tell it")
    release = (int(found[1]), int(found[2]))
    for l4t, name, tensorrt in JETPACKS:
        if release[: len(l4t)] >= l4t:
            old = version_numbers(tensorrt) < OLDEST["tensorrt"]
            advice = "install JetPack 6.1 or newer: TensorRT before 10.3 gets transformers wrong" if old else ""
            value = f"{name} or its updates (L4T {release[0]}.{release[1]}), which brings TensorRT {tensorrt}"
            return Finding("JetPack", WARNING if old else OK, value, advice)
    return Finding(
        "JetPack", WARNING, f"L4T {release[0]}.{release[1]}", "too old; Orin and newer with JetPack 6.1 work"
    )


def _power_mode(root: Path, said: Callable[..., str]) -> Iterator[Finding]:
    mode = re.search(r"Power Mode:\s*(\S+)", said("nvpmodel", "-q"))
    if mode is None:
        yield Finding("power mode", WARNING, "nvpmodel does not say", "see what `sudo nvpmodel -q` says")
        return
    modes: dict[str, str] = {}
    with suppress(OSError):
        modes = {name: number for number, name in MODE.findall((root / MODES).read_text())}
    fastest = next((name for name in ("MAXN_SUPER", "MAXN") if name in modes), None)
    if mode[1].startswith("MAXN") and fastest in (None, mode[1]):
        yield Finding("power mode", OK, mode[1])
        return
    fast = f"`sudo nvpmodel -m {modes[fastest]}` takes {fastest}, the fastest" if fastest else ""
    yield Finding("power mode", OK, mode[1], fast or "`sudo nvpmodel -p --verbose` lists the others")


def _clocks(root: Path, said: Callable[..., str]) -> Iterator[Finding]:
    """The GPU's, in MHz: by jetson_clocks, which only root may ask, or else by the kernel."""
    shown = SHOWN.search(said("jetson_clocks", "--show"))
    values = [int(text) for text in shown.groups()] if shown else _devfreq(root)
    if not values:
        yield Finding("clocks", WARNING, "those of the GPU are not known", "see what `sudo jetson_clocks --show` says")
        return
    low, high, now = (round(hertz / 1e6) for hertz in values)
    if low == high:
        yield Finding("clocks", OK, f"GPU fixed at {high} MHz")
    else:
        advice = "before measuring, `sudo jetson_clocks` fixes them at the highest"
        yield Finding("clocks", OK, f"GPU {low} to {high} MHz, now {now}", advice)


def _devfreq(root: Path) -> list[int]:
    """Lowest, highest and present frequency of the GPU, Hz; empty if the kernel does not tell them."""
    with suppress(OSError, ValueError):
        for device in sorted((root / CLOCKS).iterdir()):
            if GPU.search(device.name):
                return [int((device / f"{name}_freq").read_text()) for name in ("min", "max", "cur")]
    return []


def _memory(memory: Memory) -> Iterator[Finding]:
    if memory.available is None:
        return
    swap = memory.swap_free or 0
    value = f"shared by processor and GPU, {memory.available / 2**30:.1f} GiB free, {swap / 2**30:.1f} GiB of swap"
    low = memory.available < LEAST_MEMORY
    advice = "close other programs; engines are built with `mal-trt build-engine --low-memory`" if low else ""
    yield Finding("memory", WARNING if low else OK, value, advice)
