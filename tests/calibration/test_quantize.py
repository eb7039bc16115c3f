"""Q/DQ pairs: where they stand, what they hold, and that ONNX Runtime computes what the arithmetic says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper

from mal_trt.backends import open_backend
from mal_trt.base.errors import RunError
from mal_trt.calibration.gate import largest_set
from mal_trt.calibration.graph import check_graph, constant, fold_constants, load_onnx, value_types
from mal_trt.calibration.half import to_half
from mal_trt.calibration.quantize import GROUPS, Layer, choose, layers, quantize, to_levels, weight_scales
from mal_trt.geometry.boxes import SizeClass

Write = Callable[..., Any]


def test_layers_of_the_bundled_model() -> None:
    model = fold_constants(load_onnx("bundled")[0])
    found = layers(model)
    groups = [layer.group for layer in found]
    assert groups.count("linear") == 2 * 4 and groups.count("conv") == 51 and groups.count("head") == 7
    assert "patch" not in groups
    kinds = {layer.name.split("blocks.")[1].split(".", 1)[1] for layer in choose(model, ["linear"], "")}
    assert kinds == {f"{name}/MatMul" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert not any("matmul" in layer.weight for layer in found)  # attention's products have no weight


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("half", [False, True])
def test_graph_with_pairs(encoder: Write, kind: str, half: bool) -> None:
    model = fold_constants(load_onnx(encoder())[0])
    chosen = choose(model, GROUPS, "")
    ranges = {layer.name: 4.0 for layer in chosen}
    quantized = quantize(to_half(model) if half else model, chosen, ranges, kind)
    check_graph(quantized)
    types = value_types(quantized)
    stored = TensorProto.INT8 if kind == "int8" else TensorProto.FLOAT8E4M3FN
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    pairs = [node for node in quantized.graph.node if node.op_type.endswith("Linear")]
    assert len(pairs) == 3 * len(chosen)  # Q and DQ of the input, DQ of the weight
    for node in pairs:
        _, scale, zero = node.input
        assert types[scale] == real and types[zero] == stored
        zeros = constant(quantized, zero)
        assert zeros is not None and not zeros.astype(np.float32).any()
        assert types[node.output[0]] == (stored if node.op_type == "QuantizeLinear" else real)
    for layer in chosen:
        weight = constant(quantized, f"{layer.weight}/{kind}")
        original = constant(model, layer.weight)
        assert weight is not None and original is not None and weight.shape == original.shape
    names = {tensor.name for tensor in quantized.graph.initializer}
    assert not names & {layer.weight for layer in chosen}  # the full weights are gone


def test_arithmetic_is_what_it_says() -> None:
    """One Linear, in numbers: ONNX Runtime against NumPy, level by level."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 1, (6, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "a.backbone.b/MatMul")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    (layer,) = layers(model)
    assert layer == Layer("a.backbone.b/MatMul", "linear", "x", "w", 1)
    quantized = quantize(model, [layer], {layer.name: 2.0})
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(quantized.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = rng.normal(0, 1.2, (50, 6)).astype(np.float32)  # some beyond the range
    (y,) = session.run(None, {"x": x})
    scale = np.abs(weight).max(axis=0) / 127
    levels = np.clip(np.rint(x / np.float32(2 / 127)), -128, 127) * np.float32(2 / 127)
    expected = levels @ (np.rint(weight / scale) * scale)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(weight_scales(weight, 1, "int8", np.dtype(np.float32)), scale, rtol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_bundled_network_runs_with_pairs_before_its_clips(tmp_path: Path, kind: str) -> None:
    """ONNX Runtime's optimiser (1.31) trips over a Clip before a QuantizeLinear to FP8."""
    whole, contract, _ = load_onnx("bundled")
    model = fold_constants(whole)
    chosen = choose(model, ["conv"], "")
    path = tmp_path / "pairs.onnx"
    onnx.save(quantize(model, chosen, {layer.name: 6.0 for layer in chosen}, kind), path)
    crops = np.random.default_rng(3).integers(0, 256, (2, 3, contract.input_size, contract.input_size), np.uint8)
    logits = open_backend(path, "cpu", threads=1, backend="onnxruntime").run(crops, SizeClass.LARGE)
    assert np.isfinite(logits).all() and logits.std() > 0.1


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_levels_are_near_the_values(kind: str) -> None:
    weight = np.random.default_rng(2).normal(0, 0.1, (64, 32)).astype(np.float32)
    weight[:, 3] = 0  # a dead channel has a scale all the same
    scale = weight_scales(weight, 1, kind, np.dtype(np.float16))
    back = to_levels(weight, scale, kind).astype(np.float32) * scale.astype(np.float32)
    step = scale.astype(np.float32) / 2 if kind == "int8" else np.maximum(np.abs(weight) / 16, scale / 2**9)
    assert (np.abs(back - weight) <= step * 1.01).all() and np.isfinite(scale).all() and (scale > 0).all()


def fake_layers(count: int) -> list[Layer]:
    return [Layer(str(i), "linear", f"x{i}", f"w{i}", 1) for i in range(count)]


@pytest.mark.parametrize("bad", range(7))
def test_largest_set_leaves_out_as_few_as_it_can(bad: int) -> None:
    """Costs add up; the first `bad` layers, costliest first, must go."""
    order = fake_layers(8)
    costs = {layer.name: 1.0 if place < bad else 0.01 for place, layer in enumerate(order)}
    asked: list[int] = []

    def drop(chosen: Any) -> float:
        asked.append(len(chosen))
        return sum(costs[layer.name] for layer in chosen)

    kept, found = largest_set(order, drop, 0.1)
    assert kept == order[bad:] and found == pytest.approx(0.01 * (8 - bad)) and len(asked) <= 4


def test_no_set_at_all() -> None:
    with pytest.raises(RunError, match="no set of layers"):
        largest_set(fake_layers(5), lambda chosen: 1.0, 0.1)
    with pytest.raises(RunError, match="no set of layers"):
        largest_set(fake_layers(1), lambda chosen: 1.0, 0.1)
