"""How much of a network's work is in which layer: multiplications by weights, counted on a real crop."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx

from mal_trt.artifacts.contract import Contract
from mal_trt.calibration.activations import Probe
from mal_trt.calibration.quantize import Layer
from mal_trt.calibration.sample import CropBatch


def multiplications(
    model: onnx.ModelProto, contract: Contract, layers: Sequence[Layer], batch: CropBatch, threads: int | None = None
) -> dict[str, int]:
    """Multiplications for one crop by layer; constants must be folded. Products of two activations do not count."""
    outputs = {node.name: node.output[0] for node in model.graph.node}
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    probe = Probe(model, contract, [outputs[layer.name] for layer in layers], threads)
    shapes = {name: values.shape for name, values in probe.run(batch).items()}
    found = {}
    for layer in layers:
        weight = weights[layer.weight]
        found[layer.name] = prod(shapes[outputs[layer.name]][1:]) * prod(weight) // weight[layer.axis]
    return found
