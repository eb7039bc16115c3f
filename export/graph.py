"""MAL's networks as they are traced, and the ONNX graph made of them. Graphs are edited in `calibration.graph`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from typing import Any

import onnx
import onnx.version_converter
import torch
from torch import Tensor, nn

from mal_trt.base.errors import RunError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.network import MALNetwork
from mal_trt.training.vit import STRIDE, ViT

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCOPES = "pkg.torch.onnx.name_scopes"
SIDE_STEP = 2 * STRIDE  # sides of crops are multiples of it, as the exporter has to know
# Of torch's exporter: the lowest that it writes, and the highest in which it writes no GroupNormalization, which
# `check_graph` does not let pass. Others are converted.
TRACED_OPSETS = (18, 20)


class ExportGraph(nn.Module):
    """uint8 or float32 image [N,3,S,S], RGB 0..255 -> logits [N,1,L,L], normalisation included.

    networks: "student", "teacher" or both. grid: side of the mask head's grid; None to take it from the dimensions of
    `head_grid` [1,1,g,g], or, where there is no such input, from those of the image. Of two networks: the mean of their
    logits, student's, teacher's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, networks: Mapping[str, MALNetwork], grid: int | None) -> None:
        super().__init__()
        self.parts = tuple(networks)
        for part, network in networks.items():
            self.add_module(part, _traceable(network))
        self.grid = grid
        config = next(iter(networks.values())).config
        self.sizes = config.sizes
        self.cells = config.grid(SizeClass.LARGE) * STRIDE // config.crop_size  # of the head's grid, to one of S/16
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, image: Tensor, head_grid: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        if head_grid is not None:
            side = (head_grid.shape[2], head_grid.shape[3])
        else:
            side = (self.grid or image.shape[2] // STRIDE * self.cells,) * 2
        x = image.float() * self.scale + self.shift
        logits = [self.get_submodule(part).forward_grid(x, side) for part in self.parts]  # type: ignore[operator]
        if len(logits) == 1:
            return logits[0]  # type: ignore[no-any-return]
        return (logits[0] + logits[1]) * 0.5, logits[0], logits[1]


def _traceable(network: MALNetwork) -> MALNetwork:
    """A copy without position interpolation or fused attention, whose scale then sits once, on the queries."""
    network = deepcopy(network).eval().requires_grad_(False)
    if isinstance(network.backbone, ViT):
        side = network.config.crop_size // STRIDE
        network.backbone.fold_positions((side, side))
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    return network


def trace(
    graph: ExportGraph, input_size: int, input_dtype: str, opset: int, dynamic_head: bool | None = None
) -> onnx.ModelProto:
    """ONNX model of the graph: dynamic batch, dynamic side of the crops if the network has sizes, no local functions.

    dynamic_head: whether it has the input `head_grid`; None: if `graph.grid` is None.
    """
    inputs = {"image": torch.zeros(2, 3, input_size, input_size, dtype=getattr(torch, input_dtype))}
    shapes: dict[str, dict[int, Any]] = {"image": {0: torch.export.Dim("batch", min=1, max=4096)}}
    if graph.sizes is not None:
        step = torch.export.Dim("steps", min=1, max=max(graph.sizes) // SIDE_STEP)
        shapes["image"] |= {2: SIDE_STEP * step, 3: SIDE_STEP * step}
    if graph.grid is None if dynamic_head is None else dynamic_head:
        side = torch.export.Dim("grid", min=2, max=input_size)
        example = input_size // 8 - 1  # any side that no other dimension has
        inputs["head_grid"] = torch.zeros(1, 1, example, example, dtype=torch.uint8)
        shapes["head_grid"] = {2: side, 3: side}
    outputs = ["logits"] + [f"logits_{part}" for part in graph.parts if len(graph.parts) > 1]
    lowest, highest = TRACED_OPSETS
    traced = min(max(opset, lowest), highest)
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(inputs),
                output_names=outputs,
                opset_version=traced,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter wraps whatever an operator's translation raises
        raise RunError(f"PyTorch cannot export this network: {_root_cause(error)}") from error
    finally:
        noisy.setLevel(level)
    if program is None:
        raise RunError("PyTorch returned no ONNX program for this network; try another --opset")
    model = _tidy(program.model_proto)
    return model if opset == traced else _converted(model, opset)


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model in another operator set, where the converter knows the way."""
    for node in model.graph.node:
        if node.op_type.startswith("Reduce"):  # an attribute at its default, which older sets lack
            kept = [a for a in node.attribute if a.name != "noop_with_empty_axes" or a.i]
            del node.attribute[:]
            node.attribute.extend(kept)
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own
        raise RunError(f"this network cannot be written in opset {opset}: {_root_cause(error)}") from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name nodes and weights after their module, and drop the tracer's notes (they hold paths and stack traces).

    A Linear's weight is called `<module>.weight` and stored transposed, [in, out].
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for node in graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        module = _module(scopes)
        name = f"{module}/{node.op_type}" if module else node.op_type
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        linear = node.op_type == "MatMul" and node.input[1] in weights and node.input[1].startswith("val_")
        if linear and module and f"{module}.weight" not in (weights.keys() | set(renamed.values())):
            renamed.setdefault(node.input[1], f"{module}.weight")
        del node.metadata_props[:]
        node.doc_string = ""
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    for name, new in renamed.items():
        weights[name].name = new
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    for properties in (model.metadata_props, graph.metadata_props, graph.value_info):
        del properties[:]
    model.doc_string = graph.doc_string = ""
    graph.name = "mal"
    return model


def _module(scopes: str) -> str:
    """Dotted module of the tracer's list of scopes, e.g. "['', 'student.backbone', ..., 'linear']"."""
    names = [scope.strip(" '\"") for scope in scopes.strip("[]").split(",")][:-1]
    return names[-1] if names and not names[-1].startswith("_") else ""
