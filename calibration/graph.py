"""Reading and editing ONNX graphs: loading ours, constants, names, and what TensorRT 10.3 can take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import contract_of
from mal_trt.base.errors import InputError, RunError

# What our graphs may be made of: operators that TensorRT 10.3 (JetPack 6) imports, by onnx-tensorrt's
# docs/operators.md for TensorRT 10.1 and the builds of later versions in the tests.
_OPERATORS = """
Add AveragePool Cast Clip Concat Constant ConstantOfShape Conv ConvTranspose DequantizeLinear Div Equal Erf Exp Expand
Flatten Gather Gelu Gemm GlobalAveragePool HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization
LeakyRelu MatMul Max MaxPool Min Mul Neg Pad Pow QuantizeLinear Range ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where
"""
ALLOWED = frozenset(_OPERATORS.split())
OPSETS = range(17, 24)  # TensorRT 10.3 to 11 read all of these; Attention, from 23 on, is not in the list
QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "MatMulInteger", "QLinearConv")


def load_onnx(model: Path | str) -> tuple[onnx.ModelProto, Contract, Path]:
    """A model of `mal-trt export` (or `bundled`), its contract and its file; InputError if it is not one."""
    path = resolve_model(model)
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's exceptions share no base class
        raise InputError(f"{path}: not an ONNX file that can be read ({str(error).splitlines()[0]})") from None
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return proto, contract_of(metadata, path), path


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators the graph uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def set_contract(model: onnx.ModelProto, contract: Contract) -> None:
    """Store the contract in the model, in place of the one it had."""
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose constants are all FP32 initialisers: no Constant nodes, no weights stored in FP16 behind a Cast."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            tensors[tensor.name] = tensor
        elif node.op_type == "Cast" and node.input[0] in tensors and node.output[0] not in outputs:
            wanted = helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            values = numpy_helper.to_array(tensors[node.input[0]]).astype(wanted)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            tensors[node.output[0]] = graph.initializer[-1]
        else:
            nodes.append(node)
    replace_nodes(model, nodes)
    return model


def replace_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give the graph these nodes, and drop the initialisers and value notes that none of them uses."""
    graph = model.graph
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
    del graph.value_info[:]


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type (TensorProto.FLOAT, ...) of every value in the graph."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: int(value.type.tensor_type.elem_type) for value in values}
    return types | {tensor.name: int(tensor.data_type) for tensor in inferred.initializer}


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether anything in the graph is quantised."""
    return any(node.op_type in QUANTIZED for node in model.graph.node)


def expose(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy that also gives these values out."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    types = value_types(model)
    present = {value.name for value in model.graph.output}
    for name in names:
        if name not in present:
            model.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    return model


def check_graph(model: onnx.ModelProto) -> None:
    """RunError if the graph is not valid ONNX, or has what TensorRT 10.3's parser or an offline file cannot take."""
    onnx.checker.check_model(model, full_check=True)  # full_check: strict shape inference as well
    problems = []
    if model.functions:
        problems.append("local functions")
    if any(domain.domain not in ("", "ai.onnx") for domain in model.opset_import):
        problems.append("operators outside the ONNX standard")
    if opset(model) not in OPSETS:
        problems.append(f"opset {opset(model)}")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        problems.append("weights outside the file")
    foreign = sorted({node.op_type for node in model.graph.node} - ALLOWED)
    if foreign:
        problems.append(f"operators that TensorRT 10.3 does not read ({', '.join(foreign)})")
    for node in model.graph.node:
        if node.op_type == "Resize":
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if options.get("mode") != b"linear" or options.get("antialias", 0):
                problems.append(f"a Resize that is not bilinear ({node.name})")
    if problems:
        raise RunError(f"the graph has {', '.join(problems)}; this architecture cannot be exported")


def constant(model: onnx.ModelProto, name: str) -> np.ndarray | None:
    """Values of an initialiser, or None if there is none of that name."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return np.asarray(numpy_helper.to_array(tensor))
    return None
