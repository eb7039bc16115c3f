"""A build that is refused leaves no file, and says what this verb can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")


from command import call
from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration.activations import BeyondHalf
from mal_trt.engines.precision import typed_model
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)
EXAMPLES = Path(str(__import__("mal_trt.examples", fromlist=["x"]).__path__[0]))


def refused(folder: Path, *options: str) -> Any:
    torch.manual_seed(5)
    save_checkpoint(folder / "dense.pth", CONFIG, student=build_network(CONFIG).state_dict())
    words = ["build-engine", str(folder / "dense.pth"), "-o", str(folder / "e.engine"), *options]
    result = call(*words)
    assert [path.name for path in folder.iterdir()] == ["dense.pth"]
    return result


def test_what_cannot_be_built_is_refused_first(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = refused(tmp_path, "--flavor", "tensorrt-rtx", "--precision", "int8")
    assert result.exit_code == 2 and "give --boxes too" in result.output
    result = refused(tmp_path, "--flavor", "tensorrt-rtx", "--sparse")
    assert result.exit_code == 2 and "dense.pth: no layer has 2:4 zeros" in result.output


def test_too_few_boxes_in_words_of_a_build(tmp_path: Path) -> None:
    """Calibration's advice names options that `build-engine` has not."""
    sources = ((EXAMPLES / "photos", EXAMPLES / "boxes.json"),)
    with pytest.raises(InputError, match=r"^21 usable boxes, 768 wanted .* `mal-trt calibrate` and fewer --crops"):
        typed_model("bundled", "int8", tmp_path / "e.engine", sources, lambda text: None)
    assert not list(tmp_path.iterdir())


def test_a_layer_to_leave_out_in_words_of_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(*_: object, **__: object) -> None:
        raise BeyondHalf("encoder.0", 3)

    monkeypatch.setattr("mal_trt.calibration.calibrate.calibrate", beyond)
    sources = ((EXAMPLES / "photos", EXAMPLES / "boxes.json"),)
    with pytest.raises(RunError, match=r"^encoder\.0: 3 .* `mal-trt calibrate --precision int8 --exclude encoder\.0`"):
        typed_model("bundled", "int8", tmp_path / "e.engine", sources, lambda text: None, False)


def test_boxes_that_no_precision_asks_for(tmp_path: Path) -> None:
    words = ["build-engine", "bundled", "-o", str(tmp_path / "e.engine"), "--images", "photos", "--boxes", "b.json"]
    for more in ([], ["--precision", "fp32"]):
        result = call(*words, *more)
        assert result.exit_code == 2 and "for --precision int8, fp8 or fp16" in result.output
