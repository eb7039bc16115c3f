"""Training goes on from exported files: the weights read back give the file's own logits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from typer.testing import CliRunner

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.export import export_onnx
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import Checkpoint, load_into, read_checkpoint, save_checkpoint
from mal_trt.training.config import TrainConfig, recipe_config
from mal_trt.training.exported import read_exported, read_start
from mal_trt.training.loop import train
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.trainer import network_options

HYBRID = NetworkConfig("vit-mal-tiny/16", "hybrid", 64, 4, 16, 16, adjust_scale=False, depth=1)
STEM = NetworkConfig("vit-deit-tiny/16", "conv_stem", 64, 2, 16, 16, depth=1)
PATCH = NetworkConfig("vit-deit-tiny/16", "patch", 288, 4, 8, 8, depth=1)


def written(config: NetworkConfig, folder: Path) -> Path:
    """A checkpoint of two different networks, every parameter random."""
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = build_network(config)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        states.append(network.state_dict())
    save_checkpoint(folder / "random.pth", config, student=states[0], teacher=states[1])
    return folder / "random.pth"


def difference(model: Path | str, checkpoint: Checkpoint, part: str = "student", weights: str | None = None) -> float:
    """Largest difference between the file's logits and the network's, relative to their range, over all sizes."""
    assert checkpoint.config is not None
    network = build_network(checkpoint.config).eval()
    loaded = load_into(network, checkpoint, part)
    assert not loaded.unused
    assert all(name.startswith("backbone.head.") for name in loaded.fresh)
    backend = open_backend(model, "cpu", threads=1)
    side = checkpoint.config.crop_size
    image = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    worst = 0.0
    for size, area in zip(SizeClass, (500.0, 5000.0, 50_000.0), strict=True):
        expected = backend.run(image.transpose(0, 3, 1, 2), size, weights)
        with torch.no_grad():
            found = network(normalise(torch.from_numpy(image)), torch.full((2,), area)).numpy()
        worst = max(worst, float(np.abs(found - expected).max() / np.ptp(expected)))
    return worst


@pytest.mark.parametrize(
    ("config", "options", "limit"),
    [
        (HYBRID, {"fp16_weights": True, "opset": 17}, 1e-5),
        pytest.param(HYBRID, {}, 1e-5, marks=pytest.mark.slow),
        pytest.param(HYBRID, {"precision": "fp16"}, 1e-2, marks=pytest.mark.slow),
        # Fewer positions than the network keeps, and more of them.
        pytest.param(STEM, {"weights": "teacher"}, 1e-5, marks=pytest.mark.slow),
        pytest.param(PATCH, {"head": "large"}, 1e-5, marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_of_the_file(
    config: NetworkConfig, options: dict[str, Any], limit: float, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    masks: dict[str, Any] = {"thresholds": (0.1, 0.2, 0.3), "margin": 0.4}
    export_onnx(written(config, tmp_path), out, **masks, **options)
    checkpoint = read_start(out)
    assert checkpoint.kind == "onnx" and checkpoint.config == config
    if options.get("head") != "large":
        assert difference(out, checkpoint) < limit
    else:  # the file has one head, the network three
        torch.testing.assert_close(
            checkpoint.weights("student"), {k: v for k, v in written_state(tmp_path).items() if ".head." not in k}
        )
    found = network_options(out)
    assert (found["thresholds"], found["test_margin"]) == ((0.1, 0.2, 0.3), 0.4)


def written_state(folder: Path) -> dict[str, torch.Tensor]:
    state = read_checkpoint(folder / "random.pth").student
    assert state is not None
    return state


@pytest.mark.slow
def test_both_networks_of_a_mixed_file(tmp_path: Path) -> None:
    out = tmp_path / "mixed.onnx"
    export_onnx(written(HYBRID, tmp_path), out, weights="mixed")
    checkpoint = read_exported(out)
    assert difference(out, checkpoint, "student", "student") < 1e-5
    assert difference(out, checkpoint, "teacher", "teacher") < 1e-5
    assert difference(out, checkpoint, "student", "teacher") > 1e-2


def test_the_bundled_model() -> None:
    checkpoint = read_start("bundled")
    assert difference("bundled", checkpoint) < 1e-4
    options = network_options(Path("bundled"))
    contract = checkpoint.config
    assert contract is not None and options["crop_size"] == contract.crop_size
    assert options["adjust_scale"] is contract.adjust_scale


@pytest.mark.slow
def test_training_goes_on_from_the_bundled_model(drawn: Path, plan: TrainConfig, tmp_path: Path) -> None:
    """A few steps, a new export: the masks' logits have moved, but not far."""
    start = read_start("bundled")
    given = {"images": plan.images, "boxes": plan.boxes, "out": tmp_path / "run", "start_from": Path("bundled")}
    few = {"batch": 4, "epochs": 0.3, "min_area": 100, "device": "cpu", "workers": 0, "crf_iterations": 2}
    config = recipe_config("small", **network_options(Path("bundled")), **given, **few, picture_steps=0)
    assert start.config is not None
    last = train(replace(config, figures=0.0, test_margin=0.2))
    trained = read_checkpoint(last)
    assert trained.trainer is not None and trained.trainer["step"] == 3
    assert trained.config == replace(start.config, frozen_stages=config.frozen_stages)
    made = export_onnx(last, tmp_path / "fine.onnx").contract
    bundled = read_exported("bundled").meta
    assert made.thresholds == bundled["thresholds"] and made.margin_rate == 0.2, "what it was validated with"
    assert network_options(last)["test_margin"] == 0.2
    moved = difference(tmp_path / "fine.onnx", start)
    assert 1e-4 < moved < 0.2


def test_command(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    data = ["--images", drawn / "pictures", "--boxes", drawn / "boxes.json", "--out", out]
    few = ["--batch", 8, "--epochs", 0.2, "--min-area", 100, "--workers", 0, "--device", "cpu"]
    arguments = ["train", *data, *few, "--from", "bundled", "--crop-size", 64, "--patience", 0]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    config, bundled = read_checkpoint(out / "last.pth").config, read_exported("bundled").config
    assert config is not None and bundled is not None
    assert config == replace(bundled, crop_size=64, frozen_stages=(0, 1, 2)), "by the recipe small, as it was made"


def changed(out: Path, **fields: object) -> Path:
    """The bundled model with another contract."""
    model = onnx.load(resolve_model("bundled"))
    (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
    entry.value = replace(Contract.from_json(entry.value, "bundled"), **fields).to_json()  # type: ignore[arg-type]
    onnx.save(model, out)
    return out


def test_files_that_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rounded to int8, which training cannot undo; start from the FP32 or FP16"):
        read_start(changed(tmp_path / "a.onnx", precision="int8"))
    with pytest.raises(InputError, match=r"merged the normalisation of resnet18"):
        read_start(changed(tmp_path / "b.onnx", layout="timm", arch="resnet18"))
    model = onnx.load(resolve_model("bundled"))
    for node in model.graph.node:
        node.name = ""
        for names in (node.input, node.output):
            names[:] = [name.replace("teacher.", "net.").replace("student.", "net.") for name in names]
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("teacher.", "net.").replace("student.", "net.")
    onnx.save(model, tmp_path / "c.onnx")
    with pytest.raises(InputError, match=r"c\.onnx: its weights do not have their modules' names"):
        read_start(tmp_path / "c.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "d.onnx")
    with pytest.raises(InputError, match=r"d\.onnx: an ONNX file without mal-trt's"):
        read_start(tmp_path / "d.onnx")
    (tmp_path / "e.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"e\.onnx: not an ONNX file"):
        read_start(tmp_path / "e.onnx")
    with pytest.raises(InputError, match=r"f\.onnx: no such model file"):
        read_start(tmp_path / "f.onnx")
