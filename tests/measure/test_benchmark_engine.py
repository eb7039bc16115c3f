"""`benchmark` of an engine, over the two test doubles: timed by events, beside its ONNX file on the CPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from host_cuda import HostDriver
from host_tensorrt import Faults, host_flavor, write_engine
from mal_trt.backends import tensorrt
from mal_trt.cuda import open as cuda_open
from mal_trt.measure.benchmark import benchmark
from tiny_model import write_tiny_model


def test_an_engine_beside_its_onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    drivers: list[HostDriver] = []

    def open_driver(index: int = 0) -> HostDriver:
        drivers.append(HostDriver())
        return drivers[-1]

    monkeypatch.setattr(cuda_open, "open_driver", open_driver)
    monkeypatch.setattr(tensorrt, "open_flavor", lambda name: host_flavor(drivers[-1], name, Faults()))
    onnx = write_tiny_model(tmp_path / "tiny.onnx")
    engine = write_engine(onnx, tmp_path / "tiny.engine")
    options = {
        "batches": (1, 4, 8),
        "runs": 5,
        "warm_up": 1,
        "rounds": 1,
        "count": 8,
        "crops": "cpu",
        "progress": False,
    }
    result = benchmark([onnx, engine], **options)  # type: ignore[arg-type]
    on_cpu, on_gpu = result["models"]
    assert {row["clock"] for row in on_cpu["network"]} == {"wall clock"}
    assert [row.get("clock") for row in on_gpu["network"]] == ["CUDA events", "CUDA events", None]
    assert "takes 4 at most" in on_gpu["network"][2]["error"]
    assert (on_gpu["provider"], on_gpu["engine"]["flavor"]) == (
        "TensorRT 10.3.0 (host memory (test double))",
        "tensorrt",
    )
    assert on_gpu["sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert on_gpu["engine"]["onnx_sha256"] == on_cpu["sha256"]
    assert on_gpu["quality"] == {"iou": 1.0, "iou_boxes": 8}
    assert on_gpu["label"]["boxes"] == 8
    assert not any(count for driver in drivers for count in driver.living.values())
