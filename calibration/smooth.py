"""SmoothQuant: a normalisation's large output channels are scaled down, the next weights' rows up by as much.

The function stays the same, but one range then serves all channels of a Linear's input better (Xiao et al. 2023,
SmoothQuant, equation 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from mal_trt.artifacts.contract import Contract
from mal_trt.calibration.activations import Probe
from mal_trt.calibration.quantize import Layer
from mal_trt.calibration.sample import CropBatch

SMALLEST = 1e-5


def smooth(model: onnx.ModelProto, chosen: Sequence[Layer], channels: Mapping[str, np.ndarray], strength: float) -> int:
    """Migrate scales in place, where a LayerNormalization feeds nothing but chosen Linears; returns how many Linears.

    channels: largest absolute value of each channel of the layers' inputs. strength: SmoothQuant's alpha, 0..1;
    the higher, the more is moved from the inputs to the weights.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    moved = 0
    for norm, linears in _pairs(model, chosen):
        rows = [np.abs(_values(tensors, linear)).max(axis=1) for linear in linears]
        largest = np.maximum(channels[linears[0].input], SMALLEST) ** strength
        scale = largest / np.maximum(np.max(rows, axis=0), SMALLEST) ** (1 - strength)
        for name in norm.input[1:]:
            _store(tensors, name, numpy_helper.to_array(tensors[name]) / scale)
        for linear in linears:
            _store(tensors, linear.weight, _values(tensors, linear) * scale[:, None])
        moved += len(linears)
    return moved


def channel_maxima(
    model: onnx.ModelProto,
    contract: Contract,
    chosen: Sequence[Layer],
    batches: Iterable[CropBatch],
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Largest absolute value of each channel (last axis) of the inputs that `smooth` needs, by the value's name."""
    inputs = sorted({linear.input for _, linears in _pairs(model, chosen) for linear in linears})
    found: dict[str, np.ndarray] = {}
    probe = Probe(model, contract, inputs, threads)
    for batch in batches:
        for name, values in probe.run(batch).items():
            largest = np.abs(values.astype(np.float32)).reshape(-1, values.shape[-1]).max(axis=0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _pairs(model: onnx.ModelProto, chosen: Sequence[Layer]) -> list[tuple[onnx.NodeProto, list[Layer]]]:
    """Normalisations with an affine part, each with the chosen Linears it feeds, if it feeds nothing else and no other
    node has their weights, as frozen stages of a mixed model have."""
    makers = {name: node for node in model.graph.node for name in node.output}
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.name)
    pairs = []
    for value in dict.fromkeys(layer.input for layer in chosen):
        linears = [layer for layer in chosen if layer.input == value and layer.group == "linear" and layer.axis == 1]
        norm, names = makers.get(value), users[value]
        if norm is not None and norm.op_type == "Cast":  # a typed graph rounds between the two
            alone = users[norm.input[0]] == [norm.name]
            norm = makers.get(norm.input[0]) if alone else None
        if norm is None or norm.op_type != "LayerNormalization" or len(norm.input) < 3:
            continue
        shared = [name for name in (*norm.input[1:], *(layer.weight for layer in linears)) if len(users[name]) > 1]
        if sorted(names) == sorted(layer.name for layer in linears) and not shared:
            pairs.append((norm, linears))
    return pairs


def _values(tensors: Mapping[str, onnx.TensorProto], layer: Layer) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(tensors[layer.weight]))


def _store(tensors: Mapping[str, onnx.TensorProto], name: str, values: np.ndarray) -> None:
    kind = numpy_helper.to_array(tensors[name]).dtype
    tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values.astype(kind)), name))
