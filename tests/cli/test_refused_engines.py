"""A build that is refused leaves no file, and says what this verb can do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from typer.testing import CliRunner

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli import app
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)
FEW = "3 usable boxes, 768 wanted: give more pictures and boxes, or ask for fewer with --crops and --check-crops"


def refused(folder: Path, *options: str) -> Any:
    torch.manual_seed(5)
    save_checkpoint(folder / "dense.pth", CONFIG, student=build_network(CONFIG).state_dict())
    words = ["build-engine", str(folder / "dense.pth"), "-o", str(folder / "e.engine"), *options]
    result = CliRunner().invoke(app, words)
    assert [path.name for path in folder.iterdir()] == ["dense.pth"]
    return result


def test_what_cannot_be_built_is_refused_first(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = refused(tmp_path, "--flavor", "tensorrt-rtx", "--precision", "int8")
    assert result.exit_code == 2 and "give --images and --boxes too" in result.output
    result = refused(tmp_path, "--flavor", "tensorrt-rtx", "--sparse")
    assert result.exit_code == 2 and "dense.pth: no layer has 2:4 zeros" in result.output


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError(FEW), "or run `mal-trt calibrate` with fewer --crops and --check-crops first"),
        (RunError("out of memory"), "out of memory"),
    ],
)
def test_a_build_that_fails_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(model: Path, *_: object, **more: object) -> None:
        assert model.is_file()
        raise error

    monkeypatch.setattr(sys.modules["mal_trt.cli.build_engine"], "_check", lambda *_: None)
    monkeypatch.setattr("mal_trt.engines.build_engine", fail)
    assert says in refused(tmp_path).output
