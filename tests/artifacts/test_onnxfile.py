"""The reader of ONNX files that needs no package, against the onnx package."""

from __future__ import annotations

from collections import Counter

import pytest

from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_onnx


def test_onnx_facts_are_onnx_own() -> None:
    onnx = pytest.importorskip("onnx")
    facts, model = read_onnx(resolve_model("bundled")), onnx.load(resolve_model("bundled"))
    assert facts.operators == Counter(node.op_type for node in model.graph.node)
    assert sum(facts.weights.values()) == len(model.graph.initializer)
    assert facts.opset == model.opset_import[0].version
    assert facts.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert facts.producer == f"{model.producer_name} {model.producer_version}"
