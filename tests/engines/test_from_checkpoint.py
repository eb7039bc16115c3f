"""Engines of checkpoints: the exported model stays beside them, as it was there before if the build fails."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("tensorrt_rtx")

from mal_trt import EngineOptions, build_engine
from mal_trt.artifacts.checkpoints import Choice
from mal_trt.artifacts.manifest import read_manifest
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import RunError
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)
RTX = EngineOptions(flavor="tensorrt-rtx", batch=(1, 1, 1))


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(f"{tmp_path.name}.cache")))
    torch.manual_seed(5)
    state = build_network(CONFIG).state_dict()
    save_checkpoint(tmp_path / "dense.pth", CONFIG, student=state, teacher=state)
    return tmp_path / "dense.pth"


def test_the_model_stays_beside_the_engine(dense: Path) -> None:
    out = build_engine(dense, dense.with_name("e.engine"), RTX, choice=Choice(weights="teacher"), progress=False).path
    onnx = out.with_name("e.engine.onnx")
    manifest = read_manifest(out)
    assert (manifest.onnx, manifest.onnx_sha256) == (onnx.name, file_sha256(onnx))
    assert read_contract(onnx).weights == "teacher"
    names = ["dense.pth", *(f"e.engine{end}" for end in ("", ".json", ".onnx", ".parity.npz"))]
    assert sorted(path.name for path in dense.parent.iterdir()) == names


@pytest.mark.parametrize("before", [(), ("e.engine", "e.engine.onnx", "e.engine.parity.npz")])
def test_a_build_that_fails(dense: Path, before: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine without weights opens only beside the very model that it was built from."""
    for name in before:
        dense.with_name(name).write_bytes(name.encode())
    there = {path: path.read_bytes() for path in dense.parent.iterdir()}

    def fail(*_: object) -> None:
        assert dense.with_name("e.engine.onnx").stat().st_size > 100
        raise RunError("out of memory")

    monkeypatch.setattr("mal_trt.engines.engine.build", fail)
    with pytest.raises(RunError, match="out of memory"):
        build_engine(dense, dense.with_name("e.engine"), RTX, progress=False)
    assert {path: path.read_bytes() for path in dense.parent.iterdir()} == there
