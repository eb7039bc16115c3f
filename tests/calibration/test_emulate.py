"""FP16 really is rounded: overflow shows, and results lie on FP16's grid, unlike what the CPU gives by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper

from mal_trt.calibration.emulate import emulate
from mal_trt.calibration.graph import check_graph, load_onnx
from mal_trt.calibration.half import to_half

HALF = TensorProto.FLOAT16


def run(model: Any, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def products(first: float, second: float) -> Any:
    """x * first * second in FP16."""
    weights = [numpy_helper.from_array(np.array([[v]], np.float16), name) for v, name in ((first, "a"), (second, "b"))]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "a"], ["m"], "one"), helper.make_node("MatMul", ["m", "b"], ["y"], "two")],
        "products",
        [helper.make_tensor_value_info("x", HALF, [1, 1])],
        [helper.make_tensor_value_info("y", HALF, [1, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_overflow_between_nodes_shows() -> None:
    emulated = emulate(products(60000.0, 0.001))
    onnx.checker.check_model(emulated, full_check=True)
    assert run(emulated, np.array([[10.0]], np.float16)) == np.inf
    assert run(emulate(products(0.001, 60000.0)), np.array([[10.0]], np.float16)) == pytest.approx(600, rel=2e-3)


def test_results_between_nodes_are_rounded() -> None:
    """1 + 2^-11 is halfway between two FP16 values: it rounds to 1, and times 4096 the difference would show."""
    x = np.array([[1 + 2**-10]], np.float16)
    expected = np.float16(np.float16(x * np.float16(1 - 2**-11)) * np.float16(4096))
    assert run(emulate(products(1 - 2**-11, 4096.0)), x) == expected


def test_a_real_graph_changes_little_and_stays_valid(encoder: Callable[..., Path], tmp_path: Path) -> None:
    model, _, path = load_onnx(encoder())
    half = to_half(model)
    emulated = emulate(half)
    check_graph(emulated)
    image = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    single = run(onnx.load(path), image)
    plain, rounded = (np.abs(run(m, image) - single).mean() for m in (half, emulated))
    assert 0 < plain < rounded < 0.01
