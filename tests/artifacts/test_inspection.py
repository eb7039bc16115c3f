"""What `inspect` says of a model file, which it knows by its content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from command import call
from mal_trt.artifacts.models import resolve_model


def test_the_bundled_model_by_its_name() -> None:
    result = call("inspect", "bundled", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["result"]["bytes"] == resolve_model("bundled").stat().st_size


def test_endings_in_capitals_and_folders(tmp_path: Path) -> None:
    (tmp_path / "broken.ONNX").write_bytes(b"nothing")
    said = call("inspect", tmp_path / "broken.ONNX")
    assert said.exit_code == 2 and "not an ONNX file" in said.output
    said = call("inspect", tmp_path)
    assert said.exit_code == 2 and "a folder, not a model file" in said.output


def test_inspect_onnx(tmp_path: Path) -> None:
    model = resolve_model("bundled")
    document = json.loads(call("inspect", model, "--json").stdout)["result"]
    assert (document["kind"], document["bytes"]) == ("onnx", model.stat().st_size)
    assert document["inputs"] == {"image": "uint8 [batch, 3, 192, 192]"}
    assert document["outputs"] == {"logits": "float32 [batch, 1, 48, 48]"}
    assert document["mal_trt"]["input_size"] == 192
    assert document["parity"] == "mal_lite0.parity.npz"
    shutil.copy(model, tmp_path / "really.engine")
    assert "kind: onnx" in call("inspect", tmp_path / "really.engine").stdout


def test_inspect_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from mal_trt.training.checkpoint import save_checkpoint
    from mal_trt.training.network import NetworkConfig, build_network

    config = NetworkConfig("vit-deit-tiny/16", "patch", 64, depth=1)
    network = build_network(config)
    save_checkpoint(tmp_path / "tiny.pth", config, student=network.state_dict())
    document = json.loads(call("inspect", tmp_path / "tiny.pth", "--json").stdout)["result"]
    assert (document["kind"], document["format"]) == ("checkpoint", "mal-trt")
    assert document["config"]["arch"] == "vit-deit-tiny/16"
    assert document["weights"]["student"] == sum(t.numel() for t in network.state_dict().values())
    assert torch is not None


def test_inspect_what_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.engine").write_bytes(b"nothing")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    for name, message in (("none.onnx", "no such file"), ("broken.engine", "not a TensorRT engine")):
        result = call("inspect", tmp_path / name)
        assert result.exit_code == 2 and message in result.stderr
    assert "not an ONNX file" in call("inspect", tmp_path / "broken.onnx").stderr
