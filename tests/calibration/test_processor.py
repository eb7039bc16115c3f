"""8-bit graphs for processors: where the pairs stand, that kernels take them up, and that no sum overflows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper

from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration.calibrate import calibrate
from mal_trt.calibration.convert import convert
from mal_trt.calibration.dry_run import forecast
from mal_trt.calibration.graph import check_graph, constant, fold_constants, load_onnx
from mal_trt.calibration.observe import Spectrum
from mal_trt.calibration.processor import between, quantize_for_processor, ranged, safe_scales
from mal_trt.calibration.quantize import Layer, choose, layers
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.calibration.targets import two_sided
from mal_trt.geometry.boxes import SizeClass

Write = Callable[..., Any]
QUICK = CalibrationSettings(crops=32, check_crops=4, sensitivity_crops=0, target="cpu", max_miou_drop=0.05)
GROUPS = ("linear", "conv", "head", "patch")
ENCODER = "student.backbone.encoder"


def write_convolutions(path: Path) -> Path:
    """A stem with ReLU6, a depthwise and a pointwise convolution added to it, one at half the side resized onto that,
    a head; a channel of the stem has a bias and no weight."""
    rng = np.random.default_rng(3)
    tensors: dict[str, np.ndarray] = {"low": np.float32(0), "high": np.float32(6), "unit": np.float32(1 / 64)}  # type: ignore[dict-item]
    tensors["twice"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Mul", ["pixels", "unit"], ["scaled"], "scale"))

    def conv(name: str, given: str, out: str, shape: tuple[int, ...], **attributes: Any) -> str:
        values = rng.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = values, rng.normal(0, 0.3, shape[0]).astype(np.float32)
        inputs = [given, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [out], f"{name}/Conv", **attributes))
        return out

    conv(f"{ENCODER}.stem", "scaled", "stem", (8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    tensors[f"{ENCODER}.stem.weight"][5] = 0
    tensors[f"{ENCODER}.stem.bias"][5] = 2
    nodes.append(helper.make_node("Clip", ["stem", "low", "high"], ["clipped"], "clip"))
    conv(f"{ENCODER}.deep", "clipped", "deep", (8, 1, 3, 3), group=8, pads=[1, 1, 1, 1])
    conv(f"{ENCODER}.point", "deep", "point", (8, 8, 1, 1))
    nodes.append(helper.make_node("Add", ["clipped", "point"], ["sum"], "add"))
    conv(f"{ENCODER}.down", "sum", "down", (8, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes.append(helper.make_node("Resize", ["down", "", "twice"], ["up"], "resize", **resize))
    nodes.append(helper.make_node("Add", ["sum", "up"], ["both"], "join"))
    nodes.append(helper.make_node("Relu", ["both"], ["kept"], "relu"))
    conv("student.mask_head.out", "kept", "answers", (1, 8, 1, 1))
    nodes.append(helper.make_node("Sigmoid", ["answers"], ["logits"], "last"))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, 32, 32])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def run(model: Any, image: np.ndarray, folder: Path | None = None, **entries: str) -> Any:
    """The answers, and with `folder` how many operators of each kind ONNX Runtime made of the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for name, value in entries.items():
        options.add_session_config_entry(f"session.{name}", value)
    if folder is not None:
        options.optimized_model_filepath = str(folder / "seen.onnx")
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers = session.run(["logits"], {"image": image})[0]
    if folder is None:
        return answers
    return answers, Counter(node.op_type for node in onnx.load(folder / "seen.onnx").graph.node)


def seen_ranges(model: Any, chosen: list[Layer], image: np.ndarray) -> dict[str, tuple[float, float]]:
    names = list(ranged(model, chosen))
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(names, {"image": image})
    return {n: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for n, v in zip(names, values, strict=True)}


@pytest.fixture
def convolutions(tmp_path: Path) -> tuple[Any, list[Layer], np.ndarray]:
    """That network, its layers, and crops."""
    model = onnx.load(write_convolutions(tmp_path / "convolutions.onnx"))
    return model, layers(model), np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64)).astype(np.uint8)


def test_kernels_take_up_every_pair(convolutions: Any, tmp_path: Path) -> None:
    model, chosen, image = convolutions
    assert len(chosen) == 5
    assert [node.name for node in between(model, chosen)] == ["clip", "add", "resize", "join", "relu"]
    quantized = quantize_for_processor(model, chosen, seen_ranges(model, chosen, image))
    check_graph(quantized)
    answers, operators = run(quantized, image, tmp_path)
    # Both ReLUs are in the ranges; floating point are the beginning, the end, and (since 1.20) the bilinear Resize.
    assert operators["QLinearConv"] == 5 and operators["QLinearAdd"] == 2 and operators["Resize"] == 1
    assert not {"Conv", "Add", "Clip", "Relu"} & set(operators)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) in ((1, 1), (2, 2))
    original = run(model, image)
    assert np.abs(answers - original).mean() < 0.02 * np.ptp(original)
    written = run(quantized, image, disable_quant_qdq="1")
    assert np.abs(answers - written).mean() < 0.01 * np.ptp(original)


def test_a_layer_left_out_stays_fp32_and_so_does_what_needs_it(convolutions: Any, tmp_path: Path) -> None:
    model, chosen, image = convolutions
    some = [layer for layer in chosen if not layer.name.startswith(f"{ENCODER}.down")]
    assert [node.name for node in between(model, some)] == ["clip"]  # the sum feeds FP32 alone, so it is not rounded
    quantized = quantize_for_processor(model, some, seen_ranges(model, some, image))
    answers, operators = run(quantized, image, tmp_path)
    assert operators["QLinearConv"] == 4 and operators["QLinearAdd"] == 0
    assert sum(operators[kind] for kind in ("Conv", "FusedConv")) == 1
    original = run(model, image)
    assert np.abs(answers - original).mean() < 0.02 * np.ptp(original)


def test_a_channel_without_weights_keeps_its_bias(convolutions: Any) -> None:
    model, chosen, image = convolutions
    quantized = quantize_for_processor(model, chosen[:1], seen_ranges(model, chosen[:1], image))
    for graph in (model, quantized):
        graph.graph.output.append(helper.make_tensor_value_info("clipped", TensorProto.FLOAT, None))
    session = ort.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(["clipped"], {"image": image})[0][:, 5] - 2).max() < 0.05


def test_no_sum_of_two_neighbours_overflows() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_t(3, (64, 33)).astype(np.float32)
    rows[7] = 0
    scales = safe_scales(rows)
    levels = np.rint(rows / scales[:, None])
    for side in (np.maximum(levels, 0), np.maximum(-levels, 0)):
        assert 255 * (side[:, 1:] + side[:, :-1]).max() <= 32767
    assert np.abs(levels).max() <= 127
    half = np.abs(rows).max(axis=1) / 64  # what tools do instead: 7 bits for all
    assert (scales <= half * 1.01 + 1e-6).all() and (scales < half * 0.8).any()
    np.testing.assert_allclose(safe_scales(rows, alone=True)[:7], np.abs(rows).max(axis=1)[:7] / 127, rtol=1e-6)


def test_weights_of_the_bundled_model_are_safe_in_the_order_of_kernels() -> None:
    model = fold_constants(load_onnx("bundled")[0])
    chosen = choose(model, GROUPS, "")
    quantized = quantize_for_processor(model, chosen, dict.fromkeys(ranged(model, chosen), (-3.0, 6.0)))
    check_graph(quantized)
    checked = 0
    for layer in chosen:
        levels = constant(quantized, f"{layer.weight}_quantized")
        assert levels is not None and levels.dtype == np.int8
        moved = np.moveaxis(levels.astype(np.int32), layer.axis, 0)
        if levels.ndim == 4 and levels.shape[1] == 1:
            continue  # depthwise: added in 32 bits
        rows = (np.moveaxis(moved, 1, -1) if levels.ndim == 4 else moved).reshape(len(moved), -1)
        sums = rows[:, 1:] + rows[:, :-1]
        same = rows[:, 1:] * rows[:, :-1] > 0
        assert np.abs(sums[same]).max() <= 128
        checked += 1
    assert checked == 49


def test_both_sides_have_their_part_of_the_levels() -> None:
    below, above = Spectrum(), Spectrum()
    below.add(np.array([-1.0, 0.0]), "x")
    above.add(np.array([3.0, 0.5]), "x")
    assert two_sided(below, above, "max") == (-1.0, 3.0)
    assert two_sided(Spectrum(), above, "max") == (0.0, 3.0)
    assert two_sided(Spectrum(), Spectrum(), "mse") == (0.0, 0.0)
    rare = Spectrum()
    rare.add(np.concatenate([np.linspace(0, 1, 100_000), [100.0]]), "x")
    low, high = two_sided(Spectrum(), rare, "percentile")
    assert low == 0 and 0.9 < high < 1.1


def test_calibrated_for_a_processor(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    report = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], QUICK)
    contract = read_contract(tmp_path / "out.onnx")
    assert (contract.precision, contract.target) == ("int8", "cpu") and read_contract(model).target == ""
    assert {row["precision"] for row in report.document["layers"]} == {"int8"}
    assert report.document["settings"]["target"] == "cpu" and report.document["multiplications"] > 0.5
    with np.load(tmp_path / "out.parity.npz") as parity:
        logits = open_backend(tmp_path / "out.onnx", "cpu").run(parity["image"], SizeClass.MEDIUM)
        assert np.abs(logits - parity["logits"][0]).max() < 0.1 * np.ptp(parity["logits"])
    assert not list(tmp_path.glob(".*"))


def test_the_gate_leaves_out_what_spoils_it(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(outlier=3000.0), pictures(masks=True)
    settings = replace(QUICK, layers=("linear",), observer="max", sensitivity_crops=48, max_miou_drop=0.01)
    report = calibrate(model, tmp_path / "out.onnx", [(images, boxes)], settings, cache=tmp_path / "cache.npz")
    rows = {row["name"].split("blocks.")[1]: row for row in report.document["layers"]}
    assert rows["1.mlp.fc1/MatMul"]["precision"] == "fp32" and rows["1.mlp.fc1/MatMul"]["largest"] > 2900
    assert sum(row["precision"] == "int8" for row in rows.values()) == 3
    again = calibrate(model, tmp_path / "b.onnx", [(images, boxes)], settings, cache=tmp_path / "cache.npz")
    assert again.document["layers"] == report.document["layers"]
    with pytest.raises(InputError, match="a stale cache, the settings changed since"):
        calibrate(
            model,
            tmp_path / "c.onnx",
            [(images, boxes)],
            replace(settings, target="tensorrt"),
            cache=tmp_path / "cache.npz",
        )
    with pytest.raises(RunError, match="use the FP32 model"):
        calibrate(model, tmp_path / "d.onnx", [(images, boxes)], replace(settings, max_miou_drop=0))


def test_what_is_refused(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    with pytest.raises(InputError, match="processors compute in INT8; leave --target cpu out"):
        CalibrationSettings("fp8", target="cpu")
    with pytest.raises(InputError, match="--target npu: expected one of tensorrt, cpu"):
        CalibrationSettings(target="npu")
    convert(model, tmp_path / "half.onnx", images=images, boxes=boxes)
    with pytest.raises(InputError, match=r"half\.onnx: fp16; --target cpu starts from the FP32 model"):
        calibrate(tmp_path / "half.onnx", tmp_path / "out.onnx", [(images, boxes)], QUICK)
    assert not (tmp_path / "out.onnx").exists()


def test_forecast(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    found = forecast(model, tmp_path / "out.onnx", [(images, boxes)], QUICK)
    assert (found.precision, found.to) == ("fp32", "int8")
    assert found.layers == {"linear": 4, "patch": 1}  # all that there is
    assert 0 < found.seconds_least < found.seconds_most and not (tmp_path / "out.onnx").exists()
