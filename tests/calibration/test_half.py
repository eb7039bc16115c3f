"""Typed FP16 graphs: which value has which type, what stays FP32, and the masks' agreement with FP32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration.convert import convert
from mal_trt.calibration.graph import check_graph, fold_constants, load_onnx, opset, value_types
from mal_trt.calibration.half import to_half, too_wide
from mal_trt.geometry.boxes import SizeClass

Write = Callable[..., Any]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def nodes(model: Any, *operators: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in operators]


def test_every_value_has_the_type_it_should(encoder: Write) -> None:
    model, _, _ = load_onnx(encoder())
    half = to_half(model)
    check_graph(half)
    types = value_types(half)
    for node in nodes(half, "MatMul", "Conv", "Relu", "Mul", "Add"):
        assert {types[name] for name in (*node.input, *node.output)} == {HALF}, node.name
    for node in nodes(half, "LayerNormalization"):
        assert {types[name] for name in (*node.input, *node.output)} == {FLOAT}
    assert [(types[v.name], v.name) for v in half.graph.output] == [(FLOAT, "logits")]
    assert types["image"] == TensorProto.UINT8
    # One Cast in, one around each normalisation, one out: none is made twice.
    assert len(nodes(half, "Cast")) == 1 + 2 + 1
    assert half.ByteSize() < 0.7 * model.ByteSize()


def test_bundled_model_in_half() -> None:
    """All kinds of nodes of a real network, and weights that were stored in FP16 already."""
    model, _, _ = load_onnx("bundled")
    half = to_half(model)
    check_graph(half)
    types = value_types(half)
    for node in nodes(half, "Softmax", "LayerNormalization", "InstanceNormalization", "ReduceMean"):
        assert types[node.output[0]] == FLOAT, node.name
    for node in nodes(half, "MatMul", "Gemm", "Conv", "Gelu", "Resize"):
        assert types[node.output[0]] == HALF, node.name
    folded = {t.name: t for t in fold_constants(model).graph.initializer}
    for tensor in half.graph.initializer:
        if tensor.data_type == HALF:
            values = numpy_helper.to_array(folded[tensor.name.removesuffix("/fp16")])
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), values.astype(np.float16))


def test_nodes_near_the_end_of_the_range_stay_single(encoder: Write) -> None:
    model, _, _ = load_onnx(encoder())
    assert too_wide(model, {"hidden1": 16000.0}) == ()
    kept = too_wide(model, {"hidden1": 17000.0})
    assert kept == ("student.backbone.blocks.1.mlp.fc1/MatMul", "student.backbone.blocks.1.mlp.fc1/Add")
    types = value_types(to_half(model, {"hidden1": 17000.0}))
    assert types["hidden1"] == FLOAT and types["biased1"] == FLOAT and types["active1"] == HALF
    assert too_wide(model, {"hidden1": float("nan")}) == kept


def test_weights_that_do_not_fit(encoder: Write) -> None:
    model, _, _ = load_onnx(encoder())
    for tensor in model.graph.initializer:
        if tensor.name == "student.backbone.blocks.0.mlp.fc2.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1e6, tensor.name))
    with pytest.raises(RunError, match=r"fc2\.weight reaches .* does not fit FP16"):
        to_half(model)


@pytest.mark.parametrize("version", [17, 20])
def test_converted_file(tmp_path: Path, encoder: Write, pictures: Write, version: int) -> None:
    images, boxes = pictures(masks=True)
    report = convert(encoder(opset=version), tmp_path / "half.onnx", images=images, boxes=boxes)
    assert report.agreement["boxes"] == 36 and report.agreement["mask_iou"]["mean"] > 0.995
    assert abs(report.agreement["miou"]["difference"]["all"]) < 0.001 and report.kept == ()
    model, contract, _ = load_onnx(tmp_path / "half.onnx")
    assert contract.precision == "fp16" and opset(model) == version
    backends = [open_backend(tmp_path / name, "cpu") for name in ("model.onnx", "half.onnx")]
    with np.load(report.parity_path) as parity:
        single, half = (backend.run(parity["image"], SizeClass.SMALL) for backend in backends)
        np.testing.assert_allclose(parity["logits"][0], single, atol=1e-5)
    assert 0 < np.abs(half - single).max() < 0.02
    twice = convert(tmp_path / "model.onnx", tmp_path / "again.onnx", sources=[(images, boxes)] * 2)
    assert twice.agreement["boxes"] == 64  # of both sets
    # Without pictures it is checked on its parity crops.
    encoder(opset=version).with_suffix(".parity.npz").write_bytes(report.parity_path.read_bytes())
    assert convert(tmp_path / "model.onnx", tmp_path / "again.onnx").agreement["boxes"] == 4
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "half.onnx").read_bytes()


def test_refused_conversions(tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (images, boxes) = encoder(), pictures()
    out = tmp_path / "half.onnx"
    with pytest.raises(InputError, match=r"model\.parity\.npz: no parity crops"):
        convert(model, out)
    with pytest.raises(InputError, match="give both or neither"):
        convert(model, out, images=images)
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        convert(model, tmp_path / "half.engine", images=images, boxes=boxes)
    with (
        monkeypatch.context() as patch,
        pytest.raises(RunError, match=r"changes the masks: mean IoU 0\.99.*, limit 0;"),
    ):
        patch.setattr("mal_trt.calibration.convert.MOST_CHANGE", 0)
        convert(model, out, images=images, boxes=boxes)
    with pytest.raises(RunError, match=r"poison/Sqrt: .*NaN there on a real crop"):
        convert(encoder(poison=True), out, images=images, boxes=boxes)
    assert not out.exists() and not list(tmp_path.glob(".*"))
    convert(encoder(), out, images=images, boxes=boxes)
    with pytest.raises(InputError, match=r"half\.onnx: already fp16"):
        convert(out, tmp_path / "again.onnx", images=images, boxes=boxes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.graph.node.append(helper.make_node("Sin", ["logits"], ["s"], "s")), r"does not read \(Sin\)"),
        (lambda m: setattr(m.opset_import[0], "version", 24), "opset 24"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "outside the ONNX standard"),
    ],
)
def test_graphs_that_tensorrt_cannot_take(encoder: Write, edit: Callable[[Any], None], message: str) -> None:
    model, _, _ = load_onnx(encoder())
    check_graph(model)
    edit(model)
    with pytest.raises(RunError, match=message):
        check_graph(model)
