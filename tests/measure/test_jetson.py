"""`doctor` on a Jetson: a file system and programs that say what those of JetPack do."""

from __future__ import annotations

from pathlib import Path

import pytest

from mal_trt.base.memory import Memory
from mal_trt.measure.finding import Finding
from mal_trt.measure.jetson import examine_jetson, jetpack

GIB = 1 << 30
NVPMODEL_CONF = """\
###########################
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""
JETSON_CLOCKS = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Developer Kit
Online CPUs: 0-5
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1728000 CurrentFreq=1344000 IdleStates: WFI=1 c7=1
GPU MinFreq={low} MaxFreq=1020000000 CurrentFreq=306000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
NV Power Mode: 15W
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of an Orin Nano that are read."""
    files = {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "etc/nvpmodel.conf": NVPMODEL_CONF,
        "sys/class/devfreq/15340000.vic/min_freq": "1\n",
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
        "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def look(root: Path, memory: Memory | None = None, **programs: str) -> dict[str, Finding]:
    """Findings by name; programs: what each prints, whatever it is asked."""
    found = examine_jetson(root, lambda name, *_: programs.get(name, ""), memory or Memory(4 * GIB, GIB))
    return {finding.name: finding for finding in found}


def test_an_orin_nano(root: Path) -> None:
    clocks = JETSON_CLOCKS.format(low=306000000)
    found = look(root, nvpmodel="NV Power Mode: 15W\n0\n", jetson_clocks=clocks)
    assert {name: finding.status for name, finding in found.items()} == dict.fromkeys(
        ("JetPack", "power mode", "clocks", "memory"), "ok"
    )
    assert found["JetPack"].value == "6.1 or its updates (L4T 36.4), which brings TensorRT 10.3"
    assert (found["power mode"].value, found["clocks"].value) == ("15W", "GPU 306 to 1020 MHz, now 306")
    assert found["power mode"].advice == "`sudo nvpmodel -m 2` takes MAXN_SUPER, the fastest"
    assert "sudo jetson_clocks" in found["clocks"].advice
    assert found["memory"].value == "shared by processor and GPU, 4.0 GiB free, 1.0 GiB of swap"


def test_at_its_fastest(root: Path) -> None:
    clocks = JETSON_CLOCKS.format(low=1020000000)
    found = look(root, nvpmodel="NV Power Mode: MAXN_SUPER\n2\n", jetson_clocks=clocks)
    assert (found["power mode"].value, found["power mode"].advice) == ("MAXN_SUPER", "")
    assert (found["clocks"].value, found["clocks"].advice) == ("GPU fixed at 1020 MHz", "")
    (root / "etc/nvpmodel.conf").unlink()
    assert look(root, nvpmodel="NV Power Mode: MAXN\n0\n")["power mode"].advice == ""
    assert "nvpmodel -p" in look(root, nvpmodel="NV Power Mode: 30W\n2\n")["power mode"].advice


def test_clocks_without_root(root: Path) -> None:
    """jetson_clocks asks for root, and prints nothing else; the kernel tells everybody."""
    assert look(root)["clocks"].value == "GPU 306 to 625 MHz, now 306"
    (root / "sys/class/devfreq/17000000.gpu/cur_freq").unlink()
    assert look(root)["clocks"].status == "warning"


def test_what_is_not_told(root: Path) -> None:
    assert look(root)["power mode"].advice == "see what `sudo nvpmodel -q` says"
    assert "memory" not in look(root, Memory(None, None))
    low = look(root, Memory(GIB, None))["memory"]
    assert low.status == "warning" and "--low-memory" in low.advice and "0.0 GiB of swap" in low.value


def test_elsewhere(tmp_path: Path) -> None:
    assert look(tmp_path) == {}


@pytest.mark.parametrize(
    ("release", "status", "value"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "ok", "6.1"),
        ("# R36 (release), REVISION: 3.0, GCID: 1", "warning", "6.0"),
        ("# R38 (release), REVISION: 2.0, GCID: 1", "ok", "7.0"),
        ("# R35 (release), REVISION: 4.1, GCID: 1", "warning", "L4T 35.4"),
        ("something else", "warning", "not known"),
    ],
)
def test_jetpack(release: str, status: str, value: str) -> None:
    finding = jetpack(release)
    assert finding.status == status and value in finding.value
    assert bool(finding.advice) == (status == "warning")
