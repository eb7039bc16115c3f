"""Weights that two layers share, as student and teacher of a mixed model share those of frozen stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from mal_trt.calibration.graph import check_graph, fold_constants, load_onnx
from mal_trt.calibration.half import to_half
from mal_trt.calibration.quantize import choose, quantize
from mal_trt.calibration.smooth import smooth

Write = Callable[..., Any]


def sharing(encoder: Write) -> Any:
    model = fold_constants(load_onnx(encoder())[0])
    first = next(node for node in model.graph.node if node.name.endswith("blocks.0.mlp.fc1/MatMul"))
    other = next(node for node in model.graph.node if node.name.endswith("blocks.1.mlp.fc1/MatMul"))
    other.input[1] = first.input[1]
    return model


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@pytest.mark.parametrize("half", [False, True])
def test_a_shared_weight_has_one_pair(encoder: Write, kind: str, half: bool) -> None:
    model = sharing(encoder)
    chosen = choose(model, ("linear",), "")
    quantized = quantize(to_half(model) if half else model, chosen, {layer.name: 4.0 for layer in chosen}, kind)
    check_graph(quantized)
    names = [node.name for node in quantized.graph.node]
    assert len(names) == len(set(names)) and len(chosen) == 4
    assert sum(name.endswith("DequantizeLinear") for name in names) == 4 + 3


def test_a_shared_weight_is_not_smoothed(encoder: Write) -> None:
    model = sharing(encoder)
    chosen = choose(model, ("linear",), "")
    before = model.SerializeToString()
    assert smooth(model, chosen, {layer.input: np.full(16, 9.0) for layer in chosen}, 0.5) == 0
    assert model.SerializeToString() == before
