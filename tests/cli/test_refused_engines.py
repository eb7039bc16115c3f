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
from mal_trt.engines.precision import typed_model
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)
EXAMPLES = Path(str(__import__("mal_trt.examples", fromlist=["x"]).__path__[0]))


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


def test_too_few_boxes_in_words_of_a_build(tmp_path: Path) -> None:
    """Calibration's advice names options that `build-engine` has not."""
    sources = ((EXAMPLES / "photos", EXAMPLES / "boxes.json"),)
    with pytest.raises(InputError, match=r"^21 usable boxes, 768 wanted .* `mal-trt calibrate` and fewer --crops"):
        typed_model("bundled", "int8", tmp_path / "e.engine", sources, lambda text: None)
    assert not list(tmp_path.iterdir())


def test_boxes_that_no_precision_asks_for(tmp_path: Path) -> None:
    words = ["build-engine", "bundled", "-o", str(tmp_path / "e.engine"), "--images", "photos", "--boxes", "b.json"]
    for more in ([], ["--precision", "fp32"]):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 2 and "for --precision int8, fp8 or fp16" in result.output


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every build fails once the model is beside the engine."""

    def fail(model: Path, *_: object, **more: object) -> None:
        assert model.is_file() and model.stat().st_size > 100
        raise RunError("out of memory")

    monkeypatch.setattr(sys.modules["mal_trt.cli.build_engine"], "_check", lambda *_: None)
    monkeypatch.setattr("mal_trt.engines.build_engine", fail)


def test_a_build_that_fails_leaves_no_copy(tmp_path: Path, failing: None) -> None:
    assert "out of memory" in refused(tmp_path).output


def test_a_build_that_fails_leaves_the_model_of_the_old_engine(tmp_path: Path, failing: None) -> None:
    """An engine without weights opens only beside the very model that it was built from."""
    torch.manual_seed(5)
    save_checkpoint(tmp_path / "dense.pth", CONFIG, student=build_network(CONFIG).state_dict())
    for name in ("e.engine", "e.engine.onnx", "e.engine.parity.npz"):
        (tmp_path / name).write_bytes(name.encode())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words = ["build-engine", str(tmp_path / "dense.pth"), "-o", str(tmp_path / "e.engine")]
    assert "out of memory" in CliRunner().invoke(app, words).output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
