"""Models to build engines of: a tiny network with three mask-head grids, exported here."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP32 ONNX at 64 pixels whose head grid is 2, 4 or 8."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from mal_trt.export import export_onnx
    from mal_trt.training.checkpoint import save_checkpoint
    from mal_trt.training.network import NetworkConfig, build_network

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("dynamic")
    config = NetworkConfig(
        "vit-deit-tiny/16", "patch", 64, mask_head_hidden_channel=32, mask_head_out_channel=32, depth=1
    )
    save_checkpoint(folder / "tiny.pth", config, student=build_network(config).state_dict())
    return export_onnx(folder / "tiny.pth", folder / "tiny.onnx").path
