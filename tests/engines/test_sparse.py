"""`build-engine --sparse`: what it needs, what it asks TensorRT for, and what TensorRT says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxscript")

from mal_trt.artifacts.enginefile import load_engine
from mal_trt.artifacts.flavor import Messages
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.engines import EngineOptions, build_engine
from mal_trt.engines.sparsity import Sparse, said, sparse_kernels
from mal_trt.export import export_onnx
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.sparse import META, sparse_candidates, sparse_weight

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=32, depth=1, adjust_scale=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(dense, 2:4 sparse)."""
    torch.manual_seed(3)
    folder, network = tmp_path_factory.mktemp("sparse"), build_network(CONFIG)
    save_checkpoint(folder / "dense.pth", CONFIG, student=network.state_dict())
    names = list(sparse_candidates(network))
    with torch.no_grad():
        for name in names:
            weight = network.get_submodule(name).weight
            weight.copy_(sparse_weight(weight, "magnitude", None))
    save_checkpoint(folder / "sparse.pth", CONFIG, student=network.state_dict(), meta={META: names})
    dense, sparse = (export_onnx(folder / f"{n}.pth", folder / f"{n}.onnx").path for n in ("dense", "sparse"))
    return dense, sparse


def test_a_sparse_engine_is_built(models: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["build-engine", str(models[1]), "--sparse", "--precision", "fp16", "--flavor", "tensorrt-rtx"]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "m.engine"), "--batch", "4", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["result"]
    assert found["sparse"] == {"eligible": None, "chosen": None}
    assert any(note.endswith("layers have 2:4 zeros") for note in found["notes"])
    assert any("does not say which are sparse" in note for note in found["notes"])
    _, manifest = load_engine(tmp_path / "m.engine")
    assert manifest.flags == ("SPARSE_WEIGHTS",) and " --sparse" in manifest.command
    again = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "m.engine"), "--batch", "4", "--dry-run"])
    assert "flags: SPARSE_WEIGHTS" in again.output


def test_a_model_without_zeros_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="no layer has 2:4 zeros, which --sparse is for; make some with `mal-trt prune`"
    ):
        build_engine(models[0], tmp_path / "m.engine", EngineOptions(flavor="tensorrt-rtx", sparse=True))
    assert list(tmp_path.iterdir()) == []


def test_what_tensorrt_says_while_it_builds() -> None:
    messages = Messages()
    messages.add("INFO", "(Sparsity) Found 3 layer(s) eligible to use sparse tactics: conv1 + relu, fc1, fc2")
    messages.add("VERBOSE", "Parsing node: fc1")
    messages.add("INFO", "(Sparsity) Chose 1 layer(s) using sparse tactics: fc2")
    assert said(messages.sparsity) == Sparse(("conv1 + relu", "fc1", "fc2"), ("fc2",))
    assert messages.all == []
    assert said(["(Sparsity) Found 0 layer(s) eligible to use sparse tactics"]) == Sparse((), None)
    assert said([]) == Sparse(None, None)


def test_kernels_that_the_inspector_names() -> None:
    layers = [
        {"Name": "a", "LayerType": "gemm", "TacticName": "sm80_xmma_sparse_gemm_f16f16_tn"},
        {"Name": "b", "LayerType": "gemm", "TacticName": "sm80_xmma_gemm_f16f16_tn"},
        {"Name": "c", "LayerType": "NoOp"},
        "a name alone",
    ]
    assert sparse_kernels(json.dumps({"Layers": layers})) == ("a",)
    assert sparse_kernels(json.dumps({"Layers": ["a name alone"]})) is None
    assert sparse_kernels("no JSON") is None
