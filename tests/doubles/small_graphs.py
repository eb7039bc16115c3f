"""ONNX files of a few nodes with the mal_trt metadata, whose logits are known. A real network is `tiny_model`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from mal_trt.artifacts.contract import METADATA_KEY, Contract

SIDE = 64
CHANNELS = 16  # of `write_eight_bits`, and the logits that it gives of white crops


def write_model(
    path: Path,
    contract: Contract | None,
    grid: bool = True,
    dtype: int = TensorProto.UINT8,
    outputs: dict[str, float] | None = None,
    first_output: str = "logits",
) -> Path:
    """logits = image channel 0 [::4, ::4] / 255 * gain + the head grid's side, as [N,1,16,16]."""
    gains = {first_output: 1.0} if outputs is None else outputs
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["float", "starts", "ends", "axes", "steps"], ["red"]),
        helper.make_node("Div", ["red", "c255"], ["unit"]),
    ]
    if grid:
        nodes += [
            helper.make_node("Shape", ["head_grid"], ["shape"], start=2, end=3),
            helper.make_node("Cast", ["shape"], ["side"], to=TensorProto.FLOAT),
        ]
    constants = {
        "starts": np.array([0, 0, 0], np.int64),
        "ends": np.array([1, SIDE, SIDE], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "steps": np.array([1, 4, 4], np.int64),
        "c255": np.array([255], np.float32),
        "nothing": np.array([0], np.float32),
    }
    for name, gain in gains.items():
        constants[f"{name}_gain"] = np.array([gain], np.float32)
        nodes += [
            helper.make_node("Mul", ["unit", f"{name}_gain"], [f"{name}_scaled"]),
            helper.make_node("Add", [f"{name}_scaled", "side" if grid else "nothing"], [name]),
        ]
    inputs = [helper.make_tensor_value_info("image", dtype, ["n", 3, SIDE, SIDE])]
    if grid:
        inputs.append(helper.make_tensor_value_info("head_grid", TensorProto.UINT8, [1, 1, "g", "g"]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 16, 16]) for name in gains],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if contract is not None:
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def contract(**changes: object) -> Contract:
    document = {"schema": 1, "arch": "tiny", "layout": "patch", "input_size": SIDE, **changes}
    return Contract.from_json(json.dumps(document), "here")


def write_eight_bits(path: Path, target: str = "") -> Path:
    """An INT8 graph: large weights on large inputs, and one step of .2 in their sums. target: see `Contract`."""
    scale, wide = np.float32(1 / 127), np.float32(0.2)
    constants: dict[str, np.ndarray | np.generic] = {
        "c255": np.float32(255),
        "grow": np.full((CHANNELS, 3, 4, 4), 1 / 48, np.float32),
        "scale": scale,
        "wide": wide,
        "zero": np.int8(0),
        "scales": np.full(CHANNELS, scale),
        "zeros": np.zeros(CHANNELS, np.int8),
        "weights": np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8),
        "shrink": np.full((1, CHANNELS, 1, 1), 1 / CHANNELS, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "c255"], ["unit"]),
        helper.make_node("Conv", ["unit", "grow"], ["grown"], strides=[4, 4]),
        helper.make_node("QuantizeLinear", ["grown", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["dq", "w"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "wide", "zero"], ["sums_q"]),
        helper.make_node("DequantizeLinear", ["sums_q", "wide", "zero"], ["sums_dq"]),
        helper.make_node("Conv", ["sums_dq", "shrink"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "eight bits",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, SIDE // 4, SIDE // 4])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    told = contract(head="large", precision="int8", extra={"target": target} if target else {})
    helper.set_model_props(model, {METADATA_KEY: told.to_json()})
    onnx.save(model, path)
    return path
