"""FP16 as a GPU computes it, on a CPU: every half-precision result is really rounded.

ONNX Runtime's CPU provider computes most FP16 nodes in FP32 and keeps FP32 between them (60000 * 10 * 0.001 gives 600,
where FP16 overflows), so a typed graph looks better there than it is. With the Casts written out they are carried out:
inputs and results are rounded to FP16, sums inside a node are FP32, as tensor cores have it.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from mal_trt.calibration.graph import replace_nodes, value_types
from mal_trt.calibration.half import MOVING

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
AS_IS = MOVING | {"Cast", "QuantizeLinear", "DequantizeLinear", "Concat", "Shape"}


def emulate(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a typed graph whose FP16 nodes compute in FP32 between explicit roundings to FP16."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    types = value_types(model)
    nodes: list[onnx.NodeProto] = []
    wide: dict[str, str] = {}
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type in AS_IS:
            continue
        for index, name in enumerate(node.input):
            if types.get(name) == HALF:
                if name not in wide:
                    wide[name] = f"{name}/wide"
                    nodes.insert(len(nodes) - 1, helper.make_node("Cast", [name], [wide[name]], to=FLOAT))
                node.input[index] = wide[name]
        for index, name in enumerate(node.output):
            if types.get(name) == HALF:
                node.output[index] = f"{name}/exact"
                nodes.append(helper.make_node("Cast", [node.output[index]], [name], to=HALF))
    replace_nodes(model, nodes)
    return model
