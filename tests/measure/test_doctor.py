"""`doctor`: findings without a GPU, and on a Jetson's release file."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from command import call
from mal_trt.base.gpu import Gpu, Machine
from mal_trt.measure import doctor
from mal_trt.measure.doctor import examine
from mal_trt.measure.finding import Finding

NO_GPU = Machine(None, (), "no NVIDIA driver (libcuda.so.1 cannot be loaded)")
GPU = Gpu("RTX 3060", "8.6", 12 << 30, 1 << 30)


def findings(monkeypatch: pytest.MonkeyPatch, machine: Machine, tried: Any = None) -> dict[str, Finding]:
    monkeypatch.setattr(doctor, "find_gpus", lambda: machine)
    if tried is not None:
        monkeypatch.setattr(doctor, "_try", tried)
    return {finding.name: finding for finding in examine()}


def test_this_machine() -> None:
    """Nothing played: whatever this machine has, every finding is complete and the bundled model gives its logits."""
    pytest.importorskip("onnxruntime")
    result = call("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = {entry["name"]: entry for entry in json.loads(result.stdout)["result"]["findings"]}
    assert all(entry["status"] in ("ok", "missing", "warning") and entry["value"] for entry in found.values())
    assert all(entry["advice"] for entry in found.values() if entry["status"] == "warning")
    assert found["CPUExecutionProvider"]["status"] == "ok"
    assert "runs the bundled model" in found["CPUExecutionProvider"]["value"]
    assert {"mal-trt", "TensorRT", "TensorRT-RTX", "torch", "disk"} <= set(found)


def test_text_names_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_gpus", lambda: NO_GPU)
    monkeypatch.setattr(doctor, "_try", lambda code: doctor._Tried(False, "No module named 'tensorrt'"))
    result = call("doctor")
    assert result.exit_code == 0
    assert "missing  GPU: no NVIDIA driver" in result.stdout
    assert 'pip install "mal-trt[gpu]"' in result.stdout


def test_gpu_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, Machine("12.6", (GPU,), ""), lambda code: doctor._Tried(True, "10.3.0"))
    assert found["driver"].value == "runs CUDA up to 12.6"
    assert found["GPU 0"].status == "warning" and "small --batch" in found["GPU 0"].advice
    assert "RTX 3060, compute capability 8.6, 12.0 GiB, 1.0 GiB free" in found["GPU 0"].value


def test_hidden_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = doctor._Tried(True, "10.3.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in findings(monkeypatch, Machine("12.6", (GPU,), ""), lambda code: tried)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-c0ffee")
    told = findings(monkeypatch, Machine("12.6", (GPU,), ""), lambda code: tried)["CUDA_VISIBLE_DEVICES"]
    assert told.value == "'MIG-c0ffee' leaves only those GPUs, numbered from 0 in that order"


def test_libraries_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    old = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "8.6.1"))
    assert old["TensorRT"].status == "warning" and "10.3 or newer" in old["TensorRT"].advice
    crashed = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(False, "crashed (signal 11)"))
    assert crashed["TensorRT"].value == "cannot be loaded: crashed (signal 11)"
    moved = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "CPUExecutionProvider 3e-01"))
    assert moved["CPUExecutionProvider"].status == "warning"


def test_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAL_TRT_CUDA", raising=False)
    monkeypatch.setattr("mal_trt.cuda.open._present", lambda package: True)
    both = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "NVRTC 13.2"))["CUDA"]
    assert both.value == "by cuda-python (MAL_TRT_CUDA can choose pycuda instead), kernels by NVRTC 13.2 (no GPU)"
    none = "mal_trt.base.errors.RunError: there is no compiler for kernels; pip install it"
    alone = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(False, none))["CUDA"]
    assert (alone.status, alone.advice) == ("warning", "there is no compiler for kernels; pip install it")
    monkeypatch.setattr("mal_trt.cuda.open._present", lambda package: False)
    missing = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "1"))["CUDA"]
    assert missing.status == "missing" and "mal-trt[gpu]" in missing.advice
    monkeypatch.setenv("MAL_TRT_CUDA", "pycuda")
    named = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "1"))["CUDA"]
    assert (named.status, named.value) == ("warning", "MAL_TRT_CUDA pycuda: not installed")
    monkeypatch.setenv("MAL_TRT_CUDA", "cupy")
    unknown = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(True, "1"))["CUDA"]
    assert unknown.status == "warning" and "expected one of cuda-python, pycuda" in unknown.value


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> Any:
        raise OSError("no such device")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    found = findings(monkeypatch, NO_GPU, lambda code: doctor._Tried(False, ""))
    assert "no such device" in found["disk"].value


def test_code_that_crashes_takes_only_itself() -> None:
    assert doctor._try("print('x'); print('y')") == doctor._Tried(True, "y")
    assert doctor._try("raise ValueError('why')").output == "ValueError: why"
    assert doctor._try("import os; os.kill(os.getpid(), 11)").output == "crashed (signal 11)"
