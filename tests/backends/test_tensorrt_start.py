"""What happens when an engine is opened: its first accuracy check, weights from the ONNX file, kept kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from host_cuda import HostDriver
from host_tensorrt import Faults, GraphStrategy, host_flavor, write_engine
from mal_trt.artifacts.manifest import manifest_path, read_manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.parity_file import engine_parity_path
from mal_trt.backends import open_backend, tensorrt
from mal_trt.backends.tensorrt import TensorRTBackend, open_engine
from mal_trt.base.errors import InputError, RunError
from mal_trt.cuda import open as cuda_open
from mal_trt.geometry.boxes import SizeClass
from tiny_model import SIDE, write_tiny_model

CROPS = np.random.default_rng(0).integers(0, 256, (4, 3, SIDE, SIDE), np.uint8)


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Both doubles in the place of CUDA and TensorRT, whichever flavour an engine is of."""
    faults = Faults()
    drivers: list[HostDriver] = []

    def open_driver(index: int = 0) -> HostDriver:
        drivers.append(HostDriver())
        return drivers[-1]

    monkeypatch.setattr(cuda_open, "open_driver", open_driver)
    monkeypatch.setattr(tensorrt, "open_flavor", lambda name: host_flavor(drivers[-1], name, faults))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return faults


def engine(folder: Path, spoil: float | None = None, **changes: Any) -> Path:
    """An unchecked engine with a parity file beside it, whose logits are moved by `spoil`; None: no parity file."""
    onnx = write_tiny_model(folder / "tiny.onnx")
    path = write_engine(onnx, folder / "tiny.engine", **{"parity": {"status": "unchecked"}, **changes})
    if spoil is not None:
        cpu = open_backend(onnx, device="cpu", threads=1)
        logits = np.stack([cpu.run(CROPS, size) + np.float32(spoil) for size in SizeClass])
        np.savez(engine_parity_path(path), image=CROPS, size_classes=np.arange(3), logits=logits)
    return path


def test_the_first_opening_checks_and_notes_it(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=0.0)
    backend = open_engine(path)
    parity = read_manifest(path).parity
    assert (parity["status"], parity["mask_iou"], parity["crops"]) == ("passed", 1.0, 12)
    assert backend.manifest == read_manifest(path)
    assert sorted(p.name for p in tmp_path.glob("tiny.engine*")) == [
        "tiny.engine",
        "tiny.engine.json",
        "tiny.engine.parity.npz",
    ]
    runs = faults.executes
    open_engine(path)
    assert faults.executes == runs  # once is enough


def test_an_engine_that_fails_is_refused_every_time(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=3.0)
    before = manifest_path(path).read_text()
    for _ in range(2):
        with pytest.raises(InputError, match=r"refused, its masks on this GPU .* build it again here") as caught:
            open_engine(path)
        assert "\n" not in str(caught.value)
    assert manifest_path(path).read_text() == before


def test_nan_is_a_failed_check(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=0.0)
    onnx = write_tiny_model(tmp_path / "tiny.onnx", gain=float("nan"))
    write_engine(onnx, path, parity={"status": "unchecked"})
    with pytest.raises(InputError, match="logits that are not finite on 12 parity crops"):
        open_engine(path)


def test_kept_anyway(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=3.0, parity={"status": "unchecked", "keep_anyway": True})
    open_engine(path)
    parity = read_manifest(path).parity
    assert parity["status"] == "kept anyway" and parity["mask_iou"] < 0.9
    open_engine(path)


def test_without_a_parity_file(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path)
    open_engine(path)
    assert read_manifest(path).parity == {
        "status": "unchecked",
        "reason": "tiny.engine.parity.npz is not beside it",
    }
    engine(tmp_path, spoil=0.0)
    open_engine(path)
    assert read_manifest(path).parity["status"] == "passed"


def test_a_folder_that_cannot_be_written(tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    path = engine(tmp_path, spoil=0.0)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    assert open_engine(path).manifest.parity["status"] == "passed"
    assert read_manifest(path).parity == {"status": "unchecked"}


def test_weights_come_from_the_onnx_file(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=0.0, flags=("STRIP_PLAN",))
    open_engine(path)
    assert faults.refitted == [str(tmp_path / "tiny.onnx")]
    (tmp_path / "tiny.onnx").rename(tmp_path / "moved.onnx")
    with pytest.raises(InputError, match=r"holds no weights .* put tiny\.onnx, .* beside it"):
        open_engine(path)
    (tmp_path / "tiny.onnx").write_bytes(resolve_model("bundled").read_bytes())
    with pytest.raises(InputError, match="holds no weights"):
        open_engine(path)
    (tmp_path / "moved.onnx").replace(tmp_path / "tiny.onnx")
    for refused, message in (
        ("refit_from_file", r"cannot take its weights from .*tiny\.onnx: weights differ"),
        ("refit_cuda_engine", r"does not take the weights of .*tiny\.onnx: TensorRT gave no reason"),
    ):
        faults.refuse = {refused}
        with pytest.raises((InputError, RunError), match=message):
            open_engine(path)


def test_rtx_keeps_its_kernels_and_has_graphs_of_its_own(tmp_path: Path, faults: Faults) -> None:
    path = engine(tmp_path, spoil=0.0, flavor="tensorrt-rtx")

    def opened(graphs: bool) -> TensorRTBackend:
        faults.contexts.clear()
        faults.loaded_cache = b""
        backend = open_engine(path, graphs=graphs)
        for _ in range(3):
            backend.run(CROPS, SizeClass.LARGE)
        assert backend.driver.living["graph"] == 0
        backend.close()
        return backend

    backend = opened(True)
    assert backend.provider.startswith("TensorRT-RTX 1.7.1.116 (")
    settings = faults.contexts[0]
    assert settings.cuda_graph_strategy == GraphStrategy.WHOLE_GRAPH_CAPTURE and faults.loaded_cache == b""
    (kept,) = (tmp_path / "cache" / "mal-trt").iterdir()
    assert kept.read_bytes() == b"kernels" and kept.name.startswith("kernels-tensorrt-rtx-1.7.1.116-host_memory")
    written = kept.stat().st_mtime_ns
    opened(False)
    assert faults.contexts[0].cuda_graph_strategy == GraphStrategy.DISABLED and faults.loaded_cache == b"kernels"
    assert kept.stat().st_mtime_ns == written  # nothing new to keep
    kept.write_bytes(b"of another driver")
    opened(True)
    assert kept.read_bytes() == b"kernels"


def test_warnings_become_notes(tmp_path: Path, faults: Faults) -> None:
    other = "Using an engine plan file across different models of devices is not recommended"
    faults.warnings = [other, "something nobody has seen", other]
    assert open_engine(engine(tmp_path, spoil=0.0)).notes == [
        "the engine was built on another model of GPU; it may be slow or fail, build it again here"
    ]


def test_layers(tmp_path: Path, faults: Faults) -> None:
    backend = open_engine(engine(tmp_path, spoil=0.0))
    assert json.loads(backend.layers())["Layers"][0]["LayerType"] == "gemm"
