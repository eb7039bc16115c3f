"""Explicit quantisation: Q/DQ pairs on chosen layers of a typed graph, symmetric, with zero point 0.

A layer's input gets one scale, its weight one for each output channel, weights are stored as 8-bit integers (or
FP8 E4M3) behind a DequantizeLinear; everything between stays as it was. TensorRT fuses each pair into its GEMM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mal_trt.base.errors import InputError
from mal_trt.calibration.graph import fold_constants, opset, replace_nodes, value_types

GROUPS = ("linear", "conv", "patch", "head")
PYRAMID = (".backbone.encoder.", ".backbone.in16", ".backbone.in32", ".backbone.position")  # of training.pyramid
TYPES = {"int8": (TensorProto.INT8, 127.0), "fp8": (TensorProto.FLOAT8E4M3FN, 448.0)}
SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True)
class Layer:
    """A layer that can be quantised.

    name: its node's. group: "linear" (the encoder's), "conv" (those of a convolutional encoder), "patch" (convolutions
    of a ViT's patch embedding) or "head" (those of the mask head). input, weight: names of its values. axis: of the
    weight's output channels.
    """

    name: str
    group: str
    input: str
    weight: str
    axis: int


def layers(model: onnx.ModelProto) -> list[Layer]:
    """The layers of an FP32 graph of ours that could be quantised, in order; constants must be folded."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in weights:
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        encoder = ".backbone." in node.name
        if node.op_type == "MatMul" and len(weights[node.input[1]]) == 2 and encoder:
            group, axis = "linear", 1
        elif node.op_type == "Gemm" and encoder and not attributes.get("transA"):
            group, axis = "linear", 0 if attributes.get("transB") else 1
        elif node.op_type == "Conv" and (encoder or ".mask_head." in node.name):
            convolutional = any(part in node.name for part in PYRAMID)
            group, axis = "conv" if convolutional else "patch" if encoder else "head", 0
        else:
            continue
        found.append(Layer(node.name, group, node.input[0], node.input[1], axis))
    return found


def usual_groups(model: onnx.ModelProto) -> tuple[str, ...]:
    """What is worth quantising: of a ViT the Linears, where nearly all of its time goes; else everything."""
    convolutional = any(layer.group == "conv" for layer in layers(model))
    return ("linear", "conv", "head") if convolutional else ("linear",)


def choose(model: onnx.ModelProto, groups: Iterable[str], where: str) -> list[Layer]:
    """The layers of the groups; InputError if there are none."""
    groups = tuple(groups)
    found = [layer for layer in layers(model) if layer.group in groups]
    if not found:
        raise InputError(
            f"{where}: no {' or '.join(groups)} layer of an encoder found in the graph; "
            "only models of `mal-trt export` can be calibrated"
        )
    return found


def quantize(
    model: onnx.ModelProto, chosen: Sequence[Layer], ranges: Mapping[str, float], kind: str = "int8"
) -> onnx.ModelProto:
    """A copy of a typed graph (FP32, or FP16 of `to_half`) with Q/DQ on the chosen layers.

    ranges: largest absolute input of each layer by its name. kind: "int8" or "fp8". Scales have the type of
    what they scale. InputError if the graph's opset cannot hold that.
    """
    model = fold_constants(model)
    types = value_types(model)
    wanted = {layer.name: layer for layer in chosen}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    least = 19 if kind == "fp8" or any(types[n.input[0]] != TensorProto.FLOAT for n in _named(model, wanted)) else 13
    if opset(model) < least:
        raise InputError(
            f"opset {opset(model)} cannot hold {'FP8 values' if kind == 'fp8' else 'FP16 scales'}; "
            f"export with --opset {least} or higher"
        )
    nodes: list[onnx.NodeProto] = []
    quantized: dict[tuple[str, float], str] = {}
    weights: dict[tuple[str, int], str] = {}
    taken: set[str] = set()
    for node in model.graph.node:
        if node.name in wanted:
            layer = wanted[node.name]
            value, limit = node.input[0], ranges[layer.name]
            if (value, limit) not in quantized:  # layers that share an input share its pair
                quantized[value, limit] = _activation(model, nodes, value, limit, types[value], kind)
            weight = node.input[1], layer.axis
            if weight not in weights:  # a frozen stage's are both networks' of a mixed model
                stem = layer.weight if layer.weight not in taken else "/".join(map(str, weight))
                taken.add(stem)
                values = numpy_helper.to_array(tensors[weight[0]])
                weights[weight] = _weight(model, nodes, f"{stem}/{kind}", values, layer.axis, kind)
            node.input[0], node.input[1] = quantized[value, limit], weights[weight]
        nodes.append(node)
    replace_nodes(model, nodes)
    return model


def weight_scales(weight: np.ndarray, axis: int, kind: str, dtype: np.dtype) -> np.ndarray:
    """Scale of each output channel, such that its largest weight is the largest value of the type."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).astype(np.float32).max(axis=others)
    scale: np.ndarray = np.maximum(largest / TYPES[kind][1], SMALLEST_SCALE).astype(dtype)
    return scale


def to_levels(values: np.ndarray, scale: np.ndarray, kind: str) -> np.ndarray:
    """Values as 8-bit integers or FP8, rounded to even as ONNX defines QuantizeLinear."""
    scaled = values.astype(np.float32) / scale.astype(np.float32)
    if kind == "int8":
        return np.clip(np.rint(scaled), -127, 127).astype(np.int8)
    levels: np.ndarray = np.clip(scaled, -TYPES[kind][1], TYPES[kind][1]).astype(ml_dtypes.float8_e4m3fn)
    return levels


def _named(model: onnx.ModelProto, wanted: Mapping[str, Layer]) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.name in wanted]


def _activation(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], value: str, limit: float, element: int, kind: str
) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(element)
    scale = np.asarray(max(limit / TYPES[kind][1], SMALLEST_SCALE), dtype)
    name = f"{value}/{kind}"
    inputs = [_store(model, f"{name}/scale", scale), _zero(model, f"{name}/zero", (), kind)]
    nodes.append(helper.make_node("QuantizeLinear", [value, *inputs], [name], f"{name}/QuantizeLinear"))
    nodes.append(helper.make_node("DequantizeLinear", [name, *inputs], [f"{name}/dq"], f"{name}/DequantizeLinear"))
    return f"{name}/dq"


def _weight(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], name: str, weight: np.ndarray, axis: int, kind: str
) -> str:
    scale = weight_scales(weight, axis, kind, weight.dtype)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    inputs = [
        _store(model, name, to_levels(weight, scale.reshape(shape), kind)),
        _store(model, f"{name}/scale", scale),
        _zero(model, f"{name}/zero", scale.shape, kind),
    ]
    output = f"{name}/dq"
    nodes.append(helper.make_node("DequantizeLinear", inputs, [output], f"{name}/DequantizeLinear", axis=axis))
    return output


def _zero(model: onnx.ModelProto, name: str, shape: tuple[int, ...], kind: str) -> str:
    dtype = np.int8 if kind == "int8" else ml_dtypes.float8_e4m3fn
    return _store(model, name, np.zeros(shape, dtype))


def _store(model: onnx.ModelProto, name: str, values: np.ndarray) -> str:
    if not any(tensor.name == name for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name
