"""The GPU kit without a GPU: its limits fit the time there is, and a step that fails costs the next one nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

KIT = Path(__file__).parents[2] / "benchmarks" / "gpu"
MOST_SECONDS = 14 * 60


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(KIT))
    spec = importlib.util.spec_from_file_location(f"kit_{name}", KIT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.setenv("WORK", str(tmp_path))
    return module("stage", monkeypatch)


def test_all_limits_fit_the_time(stage: ModuleType, tmp_path: Path) -> None:
    limits = [limit for name in stage.STAGES for _, limit, _ in stage.steps(name, tmp_path, False)]
    assert len(limits) > 15 and sum(limits) <= MOST_SECONDS


def test_every_script_is_there(stage: ModuleType, tmp_path: Path) -> None:
    for name in stage.STAGES:
        for _, _, command in stage.steps(name, tmp_path, False):
            for word in command:
                if word.endswith(".py"):
                    assert Path(word).is_file(), word


def test_a_step_that_hangs_is_stopped(stage: ModuleType) -> None:
    hung = stage.attempt("hangs", 1, [sys.executable, "-c", "print('begun', flush=True); import time; time.sleep(60)"])
    assert hung["exit"] == "timed out" and hung["seconds"] < 10 and "begun" in hung["output"]
    assert stage.attempt("fails", 20, [sys.executable, "-c", "raise SystemExit(3)"])["exit"] == 3
    assert stage.attempt("is not there", 20, ["/no/such/program"])["exit"] is None


def test_report_says_what_is_missing(tmp_path: Path) -> None:
    steps = [{"step": "doctor", "exit": 0, "seconds": 2.5}, {"step": "tests", "exit": "timed out", "seconds": 50.0}]
    speed = {"models": [{"network": [{"batch": 8, "boxes_per_s": 4489.2}], "label": {"boxes_per_s": 693.0}}]}
    document: dict[str, Any] = {"stage": "driver", "gpu": None, "python": "3.12", "cores": 16, "when": "2026-11-27T00"}
    (tmp_path / "driver.json").write_text(json.dumps({**document, "steps": steps, "measured": {"ort_bundled": speed}}))
    (tmp_path / "torch.json").write_text('{"stage": "to')
    done = report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| driver | doctor | passed | 2.5 |" in done.stdout
    assert "| driver | tests | failed (timed out) | 50 |" in done.stdout
    assert "| torch | eager | not run | - |" in done.stdout
    assert "| bundled, ONNX Runtime on the GPU | 8: 4,489 | 693 |" in done.stdout
    assert "| bundled, TensorRT-RTX | not measured | not measured |" in done.stdout
    (tmp_path / "driver.json").unlink()
    assert report(tmp_path).returncode == 1


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT / "report.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """ONNX Runtime's stage, which a CPU can run too."""
    environment = {**os.environ, "PYTHON": sys.executable, "STAGES": "onnxruntime"}
    command = ["sh", str(KIT / "rehearse.sh"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "report.json").read_text())
    ended = {step["step"]: step["exit"] for step in stages["onnxruntime"]["steps"]}
    assert ended == dict.fromkeys(("parity", "export_half", "bundled", "leak", "cpu"), 0), stages["onnxruntime"]
    rows = stages["onnxruntime"]["measured"]["ort_parity"]
    assert all(row["same_bytes"] == row["objects"] for row in rows)
    assert (
        "| bundled, ONNX Runtime on the CPU | 1:" in done.stdout and "| driver | tests | not run | - |" in done.stdout
    )
