"""FP32 graphs to strongly typed FP16: half precision everywhere but where statistics are taken.

Nothing is left to a builder's choice: every value has the type it will have on the GPU, and the Casts stand in the
graph. What stays FP32 and why: normalisation layers and Softmax (sums of squares and of exponentials overflow or lose
what matters), means over many elements, and any node whose values on real crops come near the end of FP16's range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mal_trt.base.errors import RunError
from mal_trt.calibration.graph import fold_constants, opset, replace_nodes, value_types

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
SINGLE = frozenset({"LayerNormalization", "InstanceNormalization", "Softmax", "ReduceMean", "ReduceSum", "Pow"})
# These only move values: they run in the precision of what they are given.
_MOVING = "Reshape Transpose Slice Squeeze Unsqueeze Expand Gather Split Identity Flatten Tile Pad MaxPool"
MOVING = frozenset(_MOVING.split())
LARGEST = float(np.finfo(np.float16).max)
HEADROOM = 4.0  # activations of other pictures may be larger than those of the crops that were measured


def to_half(
    model: onnx.ModelProto, maxima: Mapping[str, float] | None = None, keep: Collection[str] = ()
) -> onnx.ModelProto:
    """A typed FP16 copy of an FP32 graph; inputs and outputs keep their types.

    maxima: largest absolute value seen of FP32 values by name; a node that gives or takes one above a quarter of
    FP16's range stays FP32. keep: names of further nodes to leave in FP32. RunError if a weight does not fit.
    """
    model = fold_constants(model)
    types = value_types(model)
    conversion = _Conversion(model, types, frozenset(keep).union(too_wide(model, maxima or {})))
    replace_nodes(model, conversion.nodes())
    return model


def too_wide(model: onnx.ModelProto, maxima: Mapping[str, float]) -> tuple[str, ...]:
    """Nodes that give or take a value whose largest absolute value is not safely inside FP16's range."""
    wide = {name for name, value in maxima.items() if not value * HEADROOM <= LARGEST}
    return tuple(node.name for node in model.graph.node if not wide.isdisjoint([*node.input, *node.output]))


class _Conversion:
    """One pass over the nodes in their order; `home` says in which precision each float value is made."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int], keep: Collection[str]) -> None:
        self._model, self._keep = model, keep
        self._opset = opset(model)
        self._tensors = {t.name: t for t in model.graph.initializer}
        self._home = {name: kind for name, kind in types.items() if kind == FLOAT}
        self._copies: dict[tuple[str, int], str] = {}
        self._result: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes of the typed graph."""
        outputs = {value.name for value in self._model.graph.output}
        for node in self._model.graph.node:
            kind = self._precision(node)
            for index, name in enumerate(node.input):
                if self._convertible(node, index):
                    node.input[index] = self._copy(name, kind)
            self._result.append(node)
            for index, name in enumerate(node.output):
                if name not in self._home or kind == FLOAT:
                    continue
                self._home[name] = HALF
                if name in outputs:  # the model's outputs stay FP32
                    node.output[index] = self._copies[name, HALF] = f"{name}/fp16"
                    self._cast(node.output[index], name, FLOAT)
                    self._home[name] = FLOAT
            if node.op_type == "Cast" and kind == HALF:
                node.attribute[0].i = HALF
        return self._result

    def _precision(self, node: onnx.NodeProto) -> int:
        values = [name for name in (*node.input, *node.output) if name in self._home]
        if not values or node.op_type in SINGLE or node.name in self._keep:
            return FLOAT
        if node.op_type == "Cast":
            return HALF if node.output[0] in self._home else FLOAT
        if node.op_type in MOVING and node.input[0] not in self._tensors:
            return self._home.get(node.input[0], FLOAT)
        return HALF if any(self._convertible(node, index) for index in range(len(node.input))) else FLOAT

    def _convertible(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether an input is a float that the operator takes in either precision (not, say, Resize's scales)."""
        if node.input[index] not in self._home or node.op_type == "Cast":
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        return "tensor(float16)" in formal.types and "tensor(float)" in formal.types

    def _copy(self, name: str, kind: int) -> str:
        """Name of a value in the precision asked for; a Cast or a second initialiser is added where it is missing."""
        if self._home[name] == kind:
            return name
        if (name, kind) not in self._copies:
            copy = f"{name}/{'fp16' if kind == HALF else 'fp32'}"
            if name in self._tensors:
                self._model.graph.initializer.append(_half(self._tensors[name], copy))
            else:
                self._cast(name, copy, kind)
            self._copies[name, kind] = copy
        return self._copies[name, kind]

    def _cast(self, name: str, copy: str, kind: int) -> None:
        self._result.append(helper.make_node("Cast", [name], [copy], f"{copy}/Cast", to=kind))


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise RunError(f"the weight {tensor.name} reaches {np.abs(values).max():.3g} and does not fit FP16; use fp32")
    return numpy_helper.from_array(rounded, name)
