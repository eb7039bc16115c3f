"""A tiny real ONNX model with the mal_trt metadata. Tests say `from tiny_model import write_tiny_model`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mal_trt.artifacts.contract import METADATA_KEY, Contract

SIDE = 64


def write_tiny_model(
    path: Path,
    coupled: bool = False,
    weights: str = "student",
    gain: float = 8.0,
    side: int = SIDE,
    grid_gain: float = 0.0,
    head: str = "dynamic",
    dtype: str = "uint8",
    source_sha256: str = "",
    sizes: tuple[int, int, int] | None = None,
) -> Path:
    """A model whose bright pixels are the object: logits = gain * (mean of a 4x4 patch / 255 - 0.5), [N,1,16,16].

    coupled: add the mean of the whole batch, so that a box's mask tells with whom it shared its batch.
    weights "mixed": also `logits_student` (the same) and `logits_teacher` (the opposite sign). grid_gain: added for
    each step of the head grid. head "large": no `head_grid`. dtype: of `image`.
    source_sha256: of the checkpoint that it says it was made of. sizes: sides of the crops by size of box; the last one
    is the model's `side`.
    """
    import onnx
    from onnx import TensorProto, helper

    constants = {
        "scale": np.array(gain / 255, np.float32),
        "middle": np.array(gain / 2, np.float32),
        "step": np.array(grid_gain, np.float32),
        "share": np.array(1 if coupled else 0, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["patches"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Mul", ["patches", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "middle"], ["centred"]),
        helper.make_node("ReduceMean", ["centred"], ["together"], axes=[0, 1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["together", "share"], ["shared"]),
        helper.make_node("Add", ["centred", "offset"], ["logits"]),
    ]
    side = side if sizes is None else sizes[-1]
    crop = [side, side] if sizes is None else ["s", "s"]
    map_ = [side // 4, side // 4] if sizes is None else ["l", "l"]
    image = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("image", image, ["n", 3, *crop])]
    if head == "dynamic":
        # The head grid must be read, or ONNX Runtime drops the input.
        nodes[-1:-1] = [
            helper.make_node("Shape", ["head_grid"], ["shape"], start=2, end=3),
            helper.make_node("Cast", ["shape"], ["grid"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["grid", "step"], ["steps"]),
            helper.make_node("Add", ["shared", "steps"], ["offset"]),
        ]
        inputs.append(helper.make_tensor_value_info("head_grid", TensorProto.UINT8, [1, 1, "g", "g"]))
    else:
        nodes.insert(-1, helper.make_node("Identity", ["shared"], ["offset"]))
    outputs = ["logits"]
    if weights == "mixed":
        nodes += [
            helper.make_node("Identity", ["logits"], ["logits_student"]),
            helper.make_node("Neg", ["logits"], ["logits_teacher"]),
        ]
        outputs += ["logits_student", "logits_teacher"]
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 1, *map_]) for n in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = Contract(
        arch="tiny",
        layout="patch",
        input_size=side,
        input_dtype=dtype,
        head=head,
        weights=weights,
        thresholds=(0.5, 0.5, 0.5),
        source_sha256=source_sha256,
        sizes=sizes,
        adjust_scale=head != "fixed",
    )
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
