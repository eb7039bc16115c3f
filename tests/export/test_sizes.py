"""One file for crops of a side for each size of box: export, parity, calibration, TensorRT-RTX, what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import onnx

from mal_trt.artifacts.contract import METADATA_KEY
from mal_trt.artifacts.manifest import shapes
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.artifacts.parity import check
from mal_trt.artifacts.parity_file import parity_path, read_parity
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError
from mal_trt.calibration.convert import convert
from mal_trt.cli import app
from mal_trt.engines.profiles import profiles
from mal_trt.export import export_onnx
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.exported import read_exported
from mal_trt.training.network import NetworkConfig, build_network

SIZES = (32, 64, 96)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    config = NetworkConfig("mal-lite0", crop_size=96, sizes=SIZES, depth=1, mask_head_hidden_channel=16)
    path = tmp_path_factory.mktemp("sized") / "sized.pth"
    network = build_network(config)
    for name, weight in network.named_parameters():
        if name.endswith("bias") or "norm" in name:  # many alike would be one constant in the graph
            torch.nn.init.normal_(weight, 0.0 if name.endswith("bias") else 1.0, 0.05)
    save_checkpoint(path, config, student=network.state_dict())
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    out = checkpoint.with_suffix(".onnx")
    export_onnx(checkpoint, out)
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures, each with a small, a medium and a large box."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (160, 160, 3), np.uint8)).save(folder / "pictures" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 160})
        for side in (30, 80, 140):
            annotations.append({"id": len(annotations), "image_id": i, "category_id": 1, "bbox": [9, 9, side, side]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "noise"}]}
    (folder / "boxes.json").write_text(json.dumps(document))
    return folder / "pictures", folder / "boxes.json"


def test_each_side_gives_pytorch_s_logits(checkpoint: Path, model: Path) -> None:
    contract = read_contract(model)
    assert (contract.sizes, contract.input_size, contract.sides) == (SIZES, 96, SIZES)
    source = read_checkpoint(checkpoint)
    assert source.config is not None
    sized = open_backend(model, "cpu", 1)
    for size, side in zip(SizeClass, SIZES, strict=True):
        network = build_network(replace(source.config, crop_size=side, sizes=None)).eval()
        load_into(network, source)
        crops = np.random.default_rng(side).integers(0, 256, (3, 3, side, side), np.uint8)
        with torch.no_grad():
            expected = network(normalise(torch.from_numpy(crops.transpose(0, 2, 3, 1).copy())), torch.zeros(3)).numpy()
        span = expected.max() - expected.min()
        assert np.abs(sized.run(crops, size) - expected).max() <= 1e-4 * span and span > 0.01
    sized.close()


def test_the_parity_file_has_crops_of_each_side(model: Path) -> None:
    references = read_parity(parity_path(model))
    assert [(*part.sizes, part.image.shape[-1], part.logits["logits"].shape[-1]) for part in references] == [
        (size, side, side // 4) for size, side in zip(SizeClass, SIZES, strict=True)
    ]
    backend = open_backend(model, "cpu", 1)
    verdict = check(backend.run, parity_path(model), backend.contract, 2)
    assert verdict.passed and verdict.crops == 12

    def wrong_for_small(image: np.ndarray, size: SizeClass) -> np.ndarray:
        logits = backend.run(image, size)
        return logits - 100 if size is SizeClass.SMALL else logits

    assert not check(wrong_for_small, parity_path(model), backend.contract, 2).passed
    backend.close()


def test_training_goes_on_from_the_file(checkpoint: Path, model: Path) -> None:
    found, before = read_exported(model), read_checkpoint(checkpoint)
    assert found.config is not None and before.config is not None
    assert (found.config.sizes, found.config.crop_size) == (SIZES, 96)
    network = build_network(replace(found.config, depth=1))
    load_into(network, found)
    assert before.student is not None
    for name, tensor in network.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), before.student[name].numpy(), rtol=1e-6, atol=1e-7)


def test_other_sizes_than_those_of_the_training(checkpoint: Path, tmp_path: Path) -> None:
    other = "was trained at 32, 64, 96, not at 128; .*--sizes small=32,medium=64,large=128"
    with pytest.raises(InputError, match=other):
        export_onnx(checkpoint, tmp_path / "other.onnx", sizes=(32, 64, 128))
    with pytest.raises(InputError, match="--input-size and --sizes: give one of them"):
        export_onnx(checkpoint, tmp_path / "other.onnx", sizes=(32, 64, 96), input_size=64)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_one_side_alone_and_some_of_them(checkpoint: Path, tmp_path: Path) -> None:
    alone = export_onnx(checkpoint, tmp_path / "alone.onnx", input_size=64).contract
    assert (alone.input_size, alone.sizes) == (64, None)
    two = export_onnx(checkpoint, tmp_path / "two.onnx", sizes=(32, 32, 64)).contract
    assert (two.input_size, two.sizes) == (64, (32, 32, 64))


def test_a_network_of_one_size_is_no_network_of_three(tmp_path: Path) -> None:
    config = NetworkConfig("mal-lite0", crop_size=64, depth=0, mask_head_hidden_channel=16)
    one = tmp_path / "one.pth"
    save_checkpoint(one, config, student=build_network(config).state_dict())
    result = CliRunner().invoke(
        app, ["export", str(one), "-o", str(tmp_path / "x.onnx"), "--sizes", "small=32,medium=64,large=96"]
    )
    assert result.exit_code == 2 and "was trained at 64, not at 32; train it at these" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.pth"]


def test_profiles_have_a_side_each(model: Path) -> None:
    contract = read_contract(model)
    made = profiles(contract, (1, 2, 4))
    assert [shapes(contract, profile)["image"][2] for profile in made] == [(4, 3, side, side) for side in SIZES]
    two = replace(contract, sizes=(64, 64, 96))
    assert [profile.side for profile in profiles(two, (1, 2, 4))] == [64, 96]
    dynamic = replace(two, head="dynamic", adjust_scale=True)
    assert [(p.side, p.grid) for p in profiles(dynamic, (1, 2, 4))] == [(64, 2), (64, 4), (96, 12)]


@pytest.mark.slow
def test_half_precision_and_8_bits(model: Path, data: tuple[Path, Path], tmp_path: Path) -> None:
    half = convert(model, tmp_path / "half.onnx")
    assert read_contract(half.path).sizes == SIZES and half.agreement["boxes"] == 12
    images, boxes = data
    words = ["calibrate", str(model), "-o", str(tmp_path / "int8.onnx"), "--images", str(images), "--boxes", str(boxes)]
    result = CliRunner().invoke(app, [*words, "--crops", "36", "--check-crops", "36", "--max-miou-drop", "1"])
    assert result.exit_code == 0, result.output
    assert read_contract(tmp_path / "int8.onnx").sizes == SIZES
    backend = open_backend(tmp_path / "int8.onnx", "cpu", 1)
    for size, side in zip(SizeClass, SIZES, strict=True):
        assert backend.run(np.zeros((2, 3, side, side), np.uint8), size).shape == (2, 1, side // 4, side // 4)
    backend.close()


@pytest.mark.slow
def test_tensorrt_rtx_builds_one_engine_with_a_profile_for_each_side(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "sized.engine"
    result = CliRunner().invoke(
        app, ["build-engine", str(model), "-o", str(out), "--flavor", "tensorrt-rtx", "--batch", "1,2,4"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(CliRunner().invoke(app, ["inspect", str(out), "--json"]).output)["result"]
    assert [profile["side"] for profile in told["profiles"]] == list(SIZES)
    assert told["mal_trt"]["sizes"] == list(SIZES)


def test_inspect_and_benchmark_say_the_sizes(model: Path, data: tuple[Path, Path]) -> None:
    told = json.loads(CliRunner().invoke(app, ["inspect", str(model), "--json"]).output)["result"]
    assert told["mal_trt"]["sizes"] == list(SIZES)
    images, boxes = data
    words = [
        "benchmark",
        "--model",
        str(model),
        "--images",
        str(images),
        "--boxes",
        str(boxes),
        "--device",
        "cpu",
        "--batch",
        "2",
    ]
    result = CliRunner().invoke(app, [*words, "--runs", "6", "--rounds", "1", "--threads", "1", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)["result"]["models"][0]
    assert found["sizes"] == list(SIZES) and found["label"]["boxes"] == 72
    (row,) = found["network"]
    assert row["runs_by_size"] == {"small": 2, "medium": 2, "large": 2}
    rates = row["boxes_per_s_by_size"]
    assert rates["small"] > rates["large"]


def test_packages_take_one_size(model: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["package", "triton", str(model), "-o", str(tmp_path / "repository")])
    assert result.exit_code == 2
    assert "takes crops of several sizes" in result.output and "--input-size 96" in result.output
    assert not (tmp_path / "repository").exists()


def test_metadata_that_contradicts_itself(model: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"sizes": [32, 64, 128]}, "to end with the input_size 96"),
        ({"sizes": [64, 32, 96]}, "none below the one before"),
        ({"sizes": [30, 64, 96]}, "three multiples of 16"),
        ({"sizes": [64, 96]}, "three multiples of 16"),
    ):
        proto = onnx.load(model)
        for entry in proto.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = json.dumps({**json.loads(entry.value), **change})
        bad = tmp_path / "bad.onnx"
        onnx.save(proto, bad)
        with pytest.raises(InputError, match=message):
            read_contract(bad)
