"""2:4 zeros in a graph's weights: of every four beside each other along the inputs at most two are not zero.

TensorRT's sparse kernels take such layers; `build-engine --sparse` asks for them. How the zeros get there is
`training.sparse`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

GROUP, KEPT = 4, 2
PASSING = ("DequantizeLinear", "Cast")  # what a stored weight goes through before it is used


def sparse_layers(model: onnx.ModelProto) -> dict[str, bool]:
    """Linears and convolutions by their nodes' names: whether each is 2:4 sparse. Depthwise convolutions, and layers
    whose number of inputs is no multiple of four, cannot be and are left out."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
            continue
        name = node.input[1]
        while name not in tensors and name in makers and makers[name].op_type in PASSING:
            name = makers[name].input[0]
        if name not in tensors:
            continue
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = numpy_helper.to_array(tensors[name])
        if node.op_type == "Conv":
            if options.get("group", 1) != 1:
                continue
            rows = np.moveaxis(weight, 1, -1)
        elif weight.ndim == 2:
            rows = weight if node.op_type == "Gemm" and options.get("transB") else weight.T
        else:
            continue
        if rows.shape[-1] % GROUP == 0:
            filled = (rows.astype(np.float32) != 0).reshape(-1, GROUP).sum(1)
            found[node.name] = bool(filled.max() <= KEPT)
    return found
