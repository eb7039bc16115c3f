"""Options without effect, results over their own input, and engines that are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from typer.testing import CliRunner

from command import end_in_fp16
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.export import export_onnx
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network
from small_checkpoint import make

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    save_checkpoint(tmp_path / "dense.pth", CONFIG, student=build_network(CONFIG).state_dict())
    return tmp_path / "dense.pth"


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    return result.output


def test_options_that_say_nothing_of_an_exported_model(tmp_path: Path) -> None:
    words = ["export", "bundled", "--precision", "fp16", "-o", tmp_path / "x.onnx"]
    said = refused(*words, "--opset", 17, "--head", "small", "--threshold", "0.4")
    assert "--head, --opset, --threshold: for checkpoints" in said
    assert "give both or neither" in refused(*words, "--parity-boxes", "boxes.json")
    assert not list(tmp_path.iterdir())


def test_parity_pictures_and_boxes_go_together(dense: Path) -> None:
    for option in ("--parity-boxes", "--parity-images"):
        said = refused("export", dense, "-o", dense.with_name("x.onnx"), option, "there")
        assert "--parity-images and --parity-boxes: give both or neither" in said


def test_a_folder_that_cannot_be_written_to(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("mal_trt.base.outputs.os.access", lambda *_: False)
        assert "its folder cannot be written to" in refused("export", dense, "-o", dense.with_name("x.onnx"))

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mal_trt.export.export.tempfile.TemporaryDirectory", full)
    words = ["export", str(dense), "-o", str(dense.with_name("x.onnx")), "--precision", "fp16", "-q"]
    result = CliRunner().invoke(app, words)
    said = f"error: {words[3]}: cannot be written (No space left on device); free some space or choose another folder\n"
    assert (result.exit_code, result.output) == (1, said)
    assert [path.name for path in dense.parent.iterdir()] == ["dense.pth"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_being_ended_leaves_nothing(tmp_path: Path) -> None:
    end_in_fp16(tmp_path, "export", "bundled", "-o", "x.onnx")


def test_a_network_is_not_pruned_over_itself(dense: Path) -> None:
    before, boxes = dense.read_bytes(), dense.with_name("boxes.json")
    document = {"images": [], "annotations": [], "categories": []}
    boxes.write_text(json.dumps(document))
    assert "is an input" in refused("prune", dense, "--boxes", boxes, "-o", dense)
    (dense.parent / "p.report.json").mkdir()
    said = refused("prune", dense, "--boxes", boxes, "-o", dense.with_name("p.pth"))
    assert "p.report.json: a folder" in said
    assert "--lr nan: expected" in refused("prune", dense, "--boxes", boxes, "-o", "q.pth", "--lr", "nan")
    assert dense.read_bytes() == before and len(list(dense.parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 100}, "multiple of 32"),
        ({"input_size": 100_000}, "--input-size 100000: expected 4096 pixels at most"),
        ({"input_dtype": "float16"}, "--input-dtype float16"),
        ({"weights": "ema"}, "--weights ema"),
        ({"head": "huge"}, "--head huge"),
        ({"opset": 9}, "--opset 9"),
        ({"precision": "int8"}, "--precision int8"),
        ({"precision": "fp16", "fp16_weights": True}, "--fp16-weights is for"),
        ({"thresholds": [0.1, 2.0, 0.3]}, "thresholds"),
        ({"arch": "vit-mae-base/16"}, "another network"),
        ({"arch": "mal-edge"}, "leave --arch out"),
        ({"sizes": (64,)}, "--sizes 64: expected one each"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint, _ = make(tmp_path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError) as caught:
        export_onnx(checkpoint, tmp_path / "m.onnx", **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_bad_files(tmp_path: Path) -> None:
    checkpoint, networks = make(tmp_path, adjust_scale=False)
    with pytest.raises(InputError, match="does not adjust its scale"):
        export_onnx(checkpoint, tmp_path / "m.onnx", head="small")
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        export_onnx(checkpoint, tmp_path / "m.pth")
    with pytest.raises(InputError, match="its folder does not exist"):
        export_onnx(checkpoint, tmp_path / "missing" / "m.onnx")
    save_checkpoint(tmp_path / "s.pth", networks["student"].config, student=networks["student"].state_dict())
    with pytest.raises(InputError, match="holds no teacher"):
        export_onnx(tmp_path / "s.pth", tmp_path / "m.onnx", weights="mixed")
    encoder = dict(networks["student"].backbone.state_dict())
    torch.save({"model": encoder}, tmp_path / "mae.pth")
    with pytest.raises(InputError, match="holds only an encoder"):
        export_onnx(tmp_path / "mae.pth", tmp_path / "m.onnx")
