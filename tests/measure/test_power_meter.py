"""Watts in `benchmark`: lines of tegrastats and nvidia-smi, and a run over stand-ins of both."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mal_trt.base.gpu import VISIBLE
from mal_trt.cli.benchmark_table import print_benchmark
from mal_trt.measure.benchmark import benchmark
from mal_trt.measure.benchmark_report import rows
from mal_trt.measure.power_meter import nvidia_smi_watts, open_meter, tegrastats_watts

NANO = (
    "11-28-2026 12:00:01 RAM 3345/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,0%@1510,off] EMC_FREQ 0% "
    "GR3D_FREQ 45% cpu@49.5C gpu@48.6C tj@49.5C VDD_IN 4970mW/4980mW VDD_CPU_GPU_CV 550mW/551mW VDD_SOC 1480mW/1480mW"
)
AGX = (
    "RAM 4000/30536MB GR3D_FREQ 99% VDD_GPU_SOC 12400mW/9000mW VDD_CPU_CV 2100mW/2000mW VIN_SYS_5V0 4500mW/4400mW "
    "VDDQ_VDD2_1V8AO 900mW/900mW"
)
pytestmark = pytest.mark.skipif(os.name != "posix", reason="shell scripts")


def test_lines() -> None:
    assert tegrastats_watts(NANO) == 4.97
    assert tegrastats_watts(AGX) == pytest.approx(19.0)
    assert tegrastats_watts("RAM 1/2MB POM_5V_IN 3000/2900 POM_5V_GPU 100/90") == 3.0
    assert tegrastats_watts("RAM 3345/7620MB GR3D_FREQ 45%") is None
    assert (nvidia_smi_watts("123.45\n"), nvidia_smi_watts("[N/A]\n")) == (123.45, None)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program that says a line twenty times a second, and notes its arguments, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(VISIBLE, raising=False)

    def put(name: str, line: str) -> Path:
        said = folder / f"{name}.said"
        loop = f'while :; do echo "{line}"; sleep 0.05; done'
        asked = f'case "$*" in *loop*|*interval*) echo "$@" >{said}; {loop};; esac'
        (folder / name).write_text(f"#!/bin/sh\n{asked}\n")
        (folder / name).chmod(0o755)
        return said

    return put


def test_none_without_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_meter("auto") is None


@pytest.mark.parametrize(
    ("device", "visible", "gpu"),
    [("cuda", None, "0"), ("cuda:1", None, "1"), ("auto", "3", "3"), ("cuda:1", "2,5", "5")],
)
def test_which_gpu(program: Any, monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, gpu: str) -> None:
    said = program("nvidia-smi", "100.0")
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    assert open_meter("cpu") is None
    meter = open_meter(device)
    assert meter is not None and meter.gpu_only
    with meter:
        deadline = time.monotonic() + 20
        while meter.since(0.0) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    assert meter.since(0.0) == 100.0 and meter.since(time.perf_counter()) is None
    assert said.read_text().startswith(f"-i {gpu} --query-gpu=power.draw")


def test_in_benchmark(program: Any, tiny_model: Any, data_set: Any, capsys: Any) -> None:
    """A Jetson's watts beside every figure, of a model on its processor too; those of nvidia-smi not."""
    images, boxes = data_set()
    model = tiny_model()
    options: dict[str, Any] = {"device": "auto", "threads": 1, "progress": False, "batches": (2,), "rounds": 1}
    program("nvidia-smi", "100.0")
    result = benchmark([model], images, boxes, seconds=0.3, **options)
    assert result["models"][0]["provider"] == "CPUExecutionProvider"
    assert all("watts" not in row for row in rows(result))
    program("tegrastats", NANO)
    result = benchmark([model], images, boxes, seconds=0.3, **options)
    network, _ = rows(result)
    assert network["watts"] == pytest.approx(4.97)
    assert network["boxes_per_joule"] == pytest.approx(network["boxes_per_s"] / 4.97)
    assert result["machine"]["power_meter"] == "tegrastats, the whole module"
    print_benchmark(result)
    shown = capsys.readouterr().out
    assert "box/J" in shown and "watts: by tegrastats, the whole module" in shown
