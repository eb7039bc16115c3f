"""One of TAO's specs, with a checkpoint named as TAO and NVlabs name theirs, from training to an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from command import call
from label_data import DataWriter
from mal_trt.artifacts.enginefile import load_engine
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.training.network import NetworkConfig, build_network

Run = Callable[..., Any]
NAME = "vit-mae-base-16epoch=10"


@pytest.fixture(params=["patch", "conv_stem"])
def layout(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def run(layout: str, data_set: DataWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb with -e spec.yaml. The network is ViT-Base with one of its twelve blocks and a narrow head, on crops
    of 64 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(10)
    shape = NetworkConfig("vit-mae-base/16", layout, 64, mask_head_hidden_channel=16, mask_head_out_channel=16, depth=1)
    state = build_network(shape).state_dict()
    both = {f"{part}.{name}": tensor for part in ("student", "teacher") for name, tensor in state.items()}
    torch.save({"epoch": 10, "state_dict": both}, tmp_path / f"{NAME}.pth")
    _, boxes = data_set(pictures=7)
    document = json.loads(boxes.read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]]
    boxes.write_text(json.dumps(document))
    Path("spec.yaml").write_text(
        f"""\
gpus: [0]
strategy: 'ddp_sharded'
results_dir: 'out'
checkpoint: '{NAME}.pth'
dataset:
  train_ann_path: 'boxes.json'
  train_img_dir: 'pictures'
  val_ann_path: 'boxes.json'
  val_img_dir: 'pictures'
  load_mask: True
  crop_size: 64
  min_obj_size: 100
  num_workers_per_gpu: 0
inference:
  ann_path: 'boxes.json'
  img_dir: 'pictures'
  label_dump_path: 'sample_output.json'
model:
  arch: 'vit-mae-base/16'
train:
  num_epochs: 1
  warmup_epochs: 0
  batch_size: 8
  crf_num_iter: 2
  use_amp: True
"""
    )

    def with_spec(verb: str, *arguments: object) -> Any:
        done = call(verb, "-e", "spec.yaml", *arguments)
        assert done.exit_code == 0, done.output
        return done

    return with_spec


@pytest.mark.slow
def test_from_training_to_an_engine(run: Run, layout: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    trained = run("train", "--device", "cpu", "--val-limit", 8)
    assert f"{NAME}.pth: {layout} layout, taken from the checkpoint" in trained.stderr
    assert "checkpoint: out/train/last.pth" in trained.stdout

    run("evaluate", "--device", "cpu", "--threads", 1)
    figures = json.loads(Path("out/evaluate/results.json").read_text())
    assert figures["count"] == 42 and 0 <= figures["miou"] <= 1
    labelled = run("label", "--device", "cpu", "--threads", 1)
    assert "42 of 42 boxes labelled" in labelled.stdout and f"{NAME}.pth: vit-mae-base/16, {layout}" in labelled.stderr
    records = json.loads(Path("out/inference/sample_output.json").read_text())["annotations"]
    assert len(records) == 42 and all(record["area"] == record["bbox"][2] * record["bbox"][3] for record in records)

    run("export")
    exported = Path(f"out/export/{NAME}.onnx")
    contract = read_contract(exported)
    assert (contract.arch, contract.layout, contract.input_size) == ("vit-mae-base/16", layout, 64)

    # Random weights have no masks to keep: what is tried is the way, the gate has tests of its own.
    run("calibrate", "--crops", 32, "--check-crops", 8, "--sensitivity-crops", 0, "--max-miou-drop", 1)
    assert read_contract(Path(f"out/calibrate/{NAME}.int8.onnx")).precision == "int8"
    report = json.loads(Path(f"out/calibrate/{NAME}.int8.report.json").read_text())
    assert report["verdict"].startswith("mIoU "), "checked on the masks of dataset.val_ann_path"

    if layout == "patch":
        engine = Path(f"out/build-engine/{NAME}.engine")
        built = run("build-engine", "--flavor", "tensorrt-rtx", "--batch", 2)
    else:
        engine = Path("out/mine.engine")
        built = run("build-engine", f"out/calibrate/{NAME}.int8.onnx", f"inference.trt_engine={engine}", "--batch", 2)
    assert str(engine) in built.stdout
    contract = load_engine(engine)[1].contract
    assert (contract.layout, contract.precision) == (layout, "fp32" if layout == "patch" else "int8")
