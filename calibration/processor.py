"""8-bit graphs for processors: Q and DQ where ONNX Runtime's kernels take them up. TensorRT's graphs are `quantize`'s.

ONNX Runtime's own quantiser places the pairs and folds ReLUs into ranges; which operators, and all numbers, are
decided here. Activations are uint8 with a zero point, weights int8 with a scale for each output channel.

Where a processor has no VNNI, kernels add the products of two neighbouring weights in 16 bits. Tools therefore use 7
bits for all weights (`reduce_range`). Here each channel gets the smallest scale with which no two neighbours overflow:
masks come out the same on every processor, at nearly the accuracy of 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mal_trt.calibration.graph import fold_constants
from mal_trt.calibration.quantize import Layer

# Operators that stay in 8 bits between layers that are; which of their inputs are values.
BETWEEN = {"Add": 2, "Clip": 1, "Relu": 1, "Resize": 1}
LEVELS = 255.0
# 255 * (a + b) fits 16 bits up to a + b = 128; rounding adds one at most.
LARGEST_PAIR = 127.0
SMALLEST_SCALE = 1e-9
BIAS_LEVELS = 2.0**30  # biases are 32-bit multiples of the input's scale times the weight's

Range = tuple[float, float]


def between(model: onnx.ModelProto, chosen: Sequence[Layer]) -> list[onnx.NodeProto]:
    """Operators that take nothing but 8-bit values, and give one on, when these layers are quantised.

    A convolution gives an 8-bit value. A matrix product gives FP32: what follows it is a normalisation or attention.
    """
    names = {layer.name for layer in chosen}
    weights = {tensor.name for tensor in model.graph.initializer}
    narrow: set[str] = set()
    found = []
    for node in model.graph.node:
        if node.name in names and node.op_type == "Conv":
            narrow.add(node.output[0])
        elif node.op_type in BETWEEN:
            values = [name for name in node.input[: BETWEEN[node.op_type]] if name not in weights]
            if values and narrow.issuperset(values):
                narrow.add(node.output[0])
                found.append(node)
    wanted = {layer.input for layer in chosen}
    kept = []
    for node in reversed(found):
        if node.output[0] in wanted:
            wanted.update(node.input[: BETWEEN[node.op_type]])
            kept.append(node)
    return kept[::-1]


def ranged(model: onnx.ModelProto, chosen: Sequence[Layer]) -> dict[str, str]:
    """The values that need a range, each with the node that takes or gives it."""
    names = {layer.name for layer in chosen}
    found = {layer.input: layer.name for layer in chosen}
    outputs = {node.output[0]: node.name for node in model.graph.node if node.name in names and node.op_type == "Conv"}
    return found | outputs | {node.output[0]: node.name for node in between(model, chosen)}


def quantize_for_processor(
    model: onnx.ModelProto, chosen: Sequence[Layer], ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """A copy of an FP32 graph with these layers, and the operators between them, in 8 bits.

    ranges: least and largest of each value of `ranged`, zero within.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    folded = fold_constants(model)
    nodes = {node.name: node for node in folded.graph.node}
    seen = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    # ONNX Runtime before 1.20 writes the range of every softmax, and only where one stands.
    probabilities = TensorData(lowest=np.float32(0), highest=np.float32(1))
    seen |= {node.output[0]: probabilities for node in folded.graph.node if node.op_type == "Softmax"}
    weights = {layer.weight: _scales(folded, nodes[layer.name], layer, ranges[layer.input]) for layer in chosen}
    quantizer = QDQQuantizer(
        folded,
        True,
        False,
        QuantType.QInt8,
        QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, seen),
        [layer.name for layer in chosen] + [node.name for node in between(folded, chosen)],
        [],
        ["Conv", "MatMul", "Gemm", *BETWEEN],
        {
            "WeightSymmetric": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            "TensorQuantOverrides": weights,
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    found: onnx.ModelProto = quantizer.model.model
    found.producer_name, found.producer_version = model.producer_name, model.producer_version
    standard = [entry for entry in found.opset_import if entry.domain in ("", "ai.onnx")]
    del found.opset_import[:], found.graph.value_info[:]
    found.opset_import.extend(standard)
    return found


def safe_scales(rows: np.ndarray, alone: bool = False) -> np.ndarray:
    """Scale of each channel with which neither a weight nor a sum of two neighbours is too large for a kernel.

    rows: weights [channels, K] in the order in which a kernel adds their products. alone: of a depthwise convolution,
    whose kernels add in 32 bits. Returns float32 [channels].
    """
    largest = np.abs(rows).max(axis=1)
    if not alone and rows.shape[1] > 1:
        for side in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            largest = np.maximum(largest, (side[:, 1:] + side[:, :-1]).max(axis=1))
    scales: np.ndarray = np.maximum(largest / LARGEST_PAIR, SMALLEST_SCALE).astype(np.float32)
    return scales


def _scales(model: onnx.ModelProto, node: onnx.NodeProto, layer: Layer, seen: Range) -> list[dict[str, object]]:
    """The scales of a layer's weights, as ONNX Runtime's quantiser takes them."""
    from onnxruntime.quantization import QuantType

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = numpy_helper.to_array(tensors[layer.weight]).astype(np.float32)
    # Kernels go through the input channels of a pixel first, then through the pixels.
    moved = np.moveaxis(weight, layer.axis, 0)
    rows = (np.moveaxis(moved, 1, -1) if moved.ndim > 2 else moved).reshape(len(moved), -1)
    groups = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "group"), 1)
    scales = safe_scales(rows, alone=groups == len(rows) and moved.shape[1] == 1)
    if len(node.input) > 2 and node.input[2] in tensors:  # a channel whose weights are all but zero may have a bias
        bias = np.abs(numpy_helper.to_array(tensors[node.input[2]]).astype(np.float32)).reshape(-1)
        step = max(seen[1] - seen[0], SMALLEST_SCALE) / LEVELS
        scales = np.maximum(scales, bias / (step * BIAS_LEVELS)).astype(np.float32)
    rest = {"quant_type": QuantType.QInt8, "zero_point": np.int8(0)}
    first = {"axis": layer.axis}
    return [{"scale": scale, **rest, **(first if place == 0 else {})} for place, scale in enumerate(scales)]
