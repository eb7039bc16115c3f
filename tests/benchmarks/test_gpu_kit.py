"""The GPU kit without a GPU: its limits fit the time there is, and a step that fails costs the next one nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
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


def test_a_result_cut_short_costs_the_other_steps_nothing(
    stage: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor do output that is no text, and a process that outlives its step and keeps the step's output open."""
    stays = "import subprocess, sys; subprocess.Popen(['sleep', '12'], start_new_session=True)"
    half = "import os; os.write(1, b'\\xff\\xfe'); open('speed.json', 'w').write('{\"a\": 1'); raise SystemExit(2)"
    whole = "open('leak.json', 'w').write('{}')"
    monkeypatch.setattr(
        stage, "steps", lambda *_: [(code[-9:], 9, [sys.executable, "-c", code]) for code in (stays, half, whole)]
    )
    out = tmp_path / "out" / "of"
    monkeypatch.setattr(sys, "argv", ["stage.py", "driver", "--out", str(out)])
    began = time.monotonic()
    stage.main()
    assert time.monotonic() - began < 20
    document = json.loads((out / "driver.json").read_text())
    assert [step["exit"] for step in document["steps"]] == [0, 2, 0] and document["measured"] == {"leak": {}}
    assert [path.name for path in out.iterdir()] == ["driver.json"]


# As the tool's manual prints them, with a call of ours.
HIT = '========= Program hit CUDA_ERROR_NOT_FOUND (error 500) due to "named symbol not found" on CUDA API call to '
SANITIZED = """========= COMPUTE-SANITIZER
{found}
=========
{found}
========= Program hit invalid copy direction for memcpy (error 21) on CUDA API call to cudaMemcpy.
{more}========= ERROR SUMMARY: {sum} errors
"""
ASTRAY = """========= Invalid __global__ write of size 4 bytes
=========     at crop_rows+0x30
=========     by thread (1,0,0) in block (0,0,0)
=========     Address 0x7f0000000000 is out of bounds
=========
"""


@pytest.mark.parametrize(("more", "code"), [("", 0), (ASTRAY, 1)])
def test_memcheck_tells_calls_from_memory(tmp_path: Path, more: str, code: int) -> None:
    """A stand-in for compute-sanitizer writes the log, and fails as the real one does if the command fails."""
    text = SANITIZED.format(found=f"{HIT}cuGetProcAddress_v2.", more=more, sum=3 + bool(more))
    tool = tmp_path / "sanitizer"
    tool.write_text(
        f"#!{sys.executable}\nimport sys, subprocess\nargs = sys.argv[1:]\n"
        f"open(args[args.index('--log-file') + 1], 'w').write({text!r})\n"
        "sys.exit(subprocess.run(args[args.index('no') + 1:]).returncode)\n"
    )
    tool.chmod(0o755)
    found = memcheck(tmp_path, tool, "pass")
    assert found.returncode == code, found.stderr
    told = json.loads((tmp_path / "memcheck.json").read_text())
    call = "cuGetProcAddress_v2: CUDA_ERROR_NOT_FOUND"
    assert told["calls"] == {call: 2, "cudaMemcpy: invalid copy direction for memcpy": 1}
    assert told["memory"] == ({"Invalid __global__ write of size 4 bytes": 1} if more else {})
    assert (told["counted"], told["memory_errors"]) == (3 + bool(more), int(bool(more)))
    assert memcheck(tmp_path, tool, "raise SystemExit(4)").returncode == (code or 4)


def test_memcheck_that_saw_nothing_is_no_success(tmp_path: Path) -> None:
    tool = tmp_path / "sanitizer"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    done = memcheck(tmp_path, tool, "pass")
    assert done.returncode == 1 and "did not come to its end" in done.stderr


def test_memcheck_without_its_tool(tmp_path: Path) -> None:
    done = memcheck(tmp_path, tmp_path / "nowhere", "pass")
    assert (
        done.returncode == 1
        and done.stderr == f"error: {tmp_path}/nowhere: cannot be started (No such file or directory)\n"
    )


def memcheck(work: Path, tool: Path, code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT / "memcheck.py"), "--sanitizer", str(tool), "--", sys.executable, "-c", code]
    environment = {**os.environ, "WORK": str(work)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_host_pipeline_over_the_doubles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """Real launches, copies and kernels; the engine never runs, and the labels are those of the ready logits."""
    pytest.importorskip("onnxruntime")
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run the kernels on the processor")
    from compiled_kernels import compiled
    from host_cuda import HostDriver
    from host_tensorrt import Faults, host_flavor, write_engine
    from mal_trt.backends import tensorrt
    from mal_trt.cuda import open as cuda_open

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels, faults = compiled(tmp_path), Faults()
    drivers: list[HostDriver] = []

    def open_driver(index: int = 0) -> HostDriver:
        drivers.append(HostDriver(kernels=kernels, mode="deferred"))
        flavor = host_flavor(drivers[-1], "tensorrt", faults)
        monkeypatch.setattr(tensorrt, "open_flavor", lambda name: flavor)
        return drivers[-1]

    monkeypatch.setattr(cuda_open, "open_driver", open_driver)
    engine = write_engine(tiny_model(), tmp_path / "tiny.engine", batch=(1, 8, 16))
    host = module("host", monkeypatch)
    alone = host.masker_alone(str(engine), "cuda", 0.01, 1)
    whole = host.whole_way(str(engine), "cuda", 1, 1)
    on_cpu = host.whole_way(str(engine), "cuda", 1, 1, crops="cpu")
    assert alone["boxes_per_s"] > 0 and whole["boxes"] == on_cpu["boxes"] == 21
    assert whole["boxes_per_s"] > 0 < whole["first"]
    assert faults.executes == 0
    assert all(driver.calls["launch"] for driver in drivers[:3]) and not drivers[-1].calls["launch"]
    assert not any(any(driver.living.values()) for driver in drivers)
    # The masks are those of the blobs: neither empty nor all of the box.
    side = 16
    inside = float(np.mean(host.ready_logits(4, side) > 0))
    assert 0.2 < inside < 0.8


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
    assert "| masker | - | not measured |" in done.stdout and "memcheck: not measured" in done.stdout
    calls = {"cuGetProcAddress_v2: CUDA_ERROR_NOT_FOUND": 34}
    measured = {"memcheck": {"calls": calls, "memory_errors": 0, "counted": 34}}
    (tmp_path / "driver.json").write_text(json.dumps({**document, "steps": steps, "measured": measured}))
    rows = [{"what": "label", "crops": "on the CPU", "boxes_per_s": 1234.5}]
    told = {**document, "stage": "host", "steps": [], "measured": {"host_pipeline": rows}}
    (tmp_path / "host.json").write_text(json.dumps(told))
    done = report(tmp_path)
    assert "| label | on the CPU | 1,234 |" in done.stdout
    said = "0 errors of memory; calls that returned an error: 34 cuGetProcAddress_v2: CUDA_ERROR_NOT_FOUND"
    assert said in done.stdout
    (tmp_path / "host.json").unlink()
    (tmp_path / "driver.json").unlink()
    assert report(tmp_path).returncode == 1


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT / "report.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    """ONNX Runtime's stage, which a CPU can run too."""
    environment = {**os.environ, "PYTHON": sys.executable, "STAGES": "onnxruntime host"}
    command = ["sh", str(KIT / "rehearse.sh"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "report.json").read_text())
    ended = {step["step"]: step["exit"] for step in stages["onnxruntime"]["steps"]}
    assert ended == dict.fromkeys(("parity", "export_half", "bundled", "leak", "cpu"), 0), stages["onnxruntime"]
    assert {step["step"]: step["exit"] for step in stages["host"]["steps"]} == {"host_pipeline": 0}, stages["host"]
    alone = stages["host"]["measured"]["host_pipeline"]
    assert [row["what"] for row in alone] == ["masker", "label"] and all(row["boxes_per_s"] > 0 for row in alone)
    rows = stages["onnxruntime"]["measured"]["ort_parity"]
    assert all(row["same_bytes"] == row["objects"] for row in rows)
    assert (
        "| bundled, ONNX Runtime on the CPU | 1:" in done.stdout and "| driver | tests | not run | - |" in done.stdout
    )
