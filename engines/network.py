"""A typed ONNX file as TensorRT's network, and the precision of its layers. MAL's own network is `training.network`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal_trt.artifacts.flavor import Flavor, Messages
from mal_trt.artifacts.trtmessages import explain
from mal_trt.base.errors import InputError, RunError

TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
KINDS = {"CONVOLUTION": "convolution", "NORMALIZATION": "normalization", "SOFTMAX": "softmax", "RESIZE": "resize"}
# Layers that pass their first input on as it is.
PASSING = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "IDENTITY")


@dataclass(frozen=True)
class Parsed:
    """A network and what must live as long as it does. precision: kind of layer -> type -> how many."""

    builder: Any
    network: Any
    parser: Any
    logger: Any
    precision: dict[str, dict[str, int]]


def parse(flavor: Flavor, model: Path, messages: Messages) -> Parsed:
    """Read an ONNX file into a strongly typed network; InputError if this TensorRT cannot."""
    trt = flavor.module
    logger = flavor.logger(messages)
    builder = trt.Builder(logger)
    # Types come from the file alone. TensorRT 11 and TensorRT-RTX know nothing else and ignore the flag.
    typed = 1 << int(flavor.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"))
    network = builder.create_network(typed)
    if network is None:
        raise RunError(f"{flavor.title} makes no network: {explain(messages.errors)}")
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        where = next((f" at {error.node_name()}" for error in found if error.node_name()), "")
        reason = explain([error.desc() for error in found] or messages.errors)
        raise InputError(f"{model}: {flavor.title} cannot read it{where}: {reason}")
    return Parsed(builder, network, parser, logger, precision(network))


def precision(network: Any) -> dict[str, dict[str, int]]:
    """How many layers of each kind that computes have which type: {"linear": {"fp16": 48}, ...}.

    linear: products with weights; attention: products of two computed tensors.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    found: dict[str, Counter[str]] = {}
    for layer in layers:
        kind = KINDS.get(layer.type.name)
        if layer.type.name == "MATRIX_MULTIPLY":
            kind = "linear" if any(_is_weight(makers, layer.get_input(i)) for i in (0, 1)) else "attention"
        if kind is not None:
            found.setdefault(kind, Counter())[_type(makers, layer)] += 1
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _type(makers: dict[str, Any], layer: Any) -> str:
    """Type a layer computes in: that of its output, or of the integers when all it takes was just dequantised."""
    name = str(layer.get_output(0).dtype.name)
    if layer.type.name in ("MATRIX_MULTIPLY", "CONVOLUTION"):
        sources = [_maker(makers, layer.get_input(i)) for i in range(min(layer.num_inputs, 2))]
        if len(sources) == 2 and all(s is not None and s.type.name == "DEQUANTIZE" for s in sources):
            name = str(sources[0].get_input(0).dtype.name)
    return TYPES.get(name, name.lower())


def _is_weight(makers: dict[str, Any], tensor: Any) -> bool:
    layer = _maker(makers, tensor)
    while layer is not None and layer.type.name in ("DEQUANTIZE", "QUANTIZE", "CAST"):
        layer = _maker(makers, layer.get_input(0))
    return layer is not None and layer.type.name == "CONSTANT"


def _maker(makers: dict[str, Any], tensor: Any) -> Any:
    """Layer that makes a tensor, seen through those that only reshape it; None for an input of the network."""
    layer = makers.get(tensor.name)
    while layer is not None and layer.type.name in PASSING:
        layer = makers.get(layer.get_input(0).name)
    return layer
