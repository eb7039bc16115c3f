"""Pruned networks beside the dense one: what each layer costs alone, how many can be sparse together, the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import numpy_helper
from torch import Tensor

from mal_trt.base.errors import RunError
from mal_trt.calibration.convert import describe_drop
from mal_trt.calibration.gate import Check, Cost, change_of, drop_of, largest_set
from mal_trt.calibration.sample import CropBatch

SHOWN = 5
DENSE_MASKS = "the dense network's"


def with_weights(model: onnx.ModelProto, weights: Mapping[str, Tensor]) -> onnx.ModelProto:
    """A copy of an exported graph of one network with other weights in these layers, by their modules' names."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        name = node.name.partition("/")[0].partition(".")[2]
        if name in weights and node.op_type in ("MatMul", "Gemm", "Conv") and node.input[1] in tensors:
            values = weights[name].detach().numpy()
            values = values.T if node.op_type == "MatMul" else values
            tensors[node.input[1]].CopyFrom(numpy_helper.from_array(values.copy(), node.input[1]))
    return model


class Trial:
    """Sets of layers made sparse in a graph, and what each set measured.

    model: the exported graph, with the weights as they are. sparse: the weights that each layer would get.
    """

    def __init__(self, check: Check, model: onnx.ModelProto, sparse: Mapping[str, Tensor]) -> None:
        self.check, self.model, self.sparse = check, model, sparse
        self._known: dict[frozenset[str], float] = {}

    def drop(self, names: Sequence[str]) -> float:
        """What is lost with these layers sparse."""
        key = frozenset(names)
        if key not in self._known:
            chosen = {name: self.sparse[name] for name in names}
            self._known[key] = drop_of(self.check.agreement(with_weights(self.model, chosen)))
        return self._known[key]


def costs(
    check: Check, model: onnx.ModelProto, sparse: Mapping[str, Tensor], done: Callable[[], None] = lambda: None
) -> list[Cost]:
    """What each layer costs when it alone is sparse, costliest first. done: called after each."""
    found = []
    for name, weight in sparse.items():
        summary = check.agreement(with_weights(model, {name: weight}))
        error = summary["logit_error"]
        found.append(Cost(name, change_of(summary), error["relative_mean"] if error else 1.0))
        done()
    return sorted(found, key=lambda cost: (-cost.change, -cost.error))


def most_layers(trial: Trial, ranked: Sequence[Cost], limit: float) -> list[str]:
    """The most layers that stay within the limit, the costliest left out first; RunError if none do."""
    try:
        return largest_set([cost.layer for cost in ranked], trial.drop, limit)[0]
    except RunError:
        raise RunError(
            f"no set of layers can be sparse within the limit of {limit:g}; costliest alone: {ranking(ranked)}; "
            "nothing was written, use --score sparsegpt, --recover, or a higher --max-miou-drop"
        ) from None


def passed(agreement: Mapping[str, Any], limit: float, ranked: Sequence[Cost], what: str) -> None:
    """RunError if a pruned network loses more than the limit."""
    if drop_of(agreement) <= limit:
        return
    costliest = f"; costliest alone: {ranking(ranked)}; leave them out with --skip" if ranked else ""
    raise RunError(
        f"the pruned network's masks are not the dense one's: {describe_drop(agreement, DENSE_MASKS)} "
        f"(limit {limit:g}){costliest}; nothing was written, {what}"
    )


def ranking(ranked: Sequence[Cost]) -> str:
    """The costliest layers and what each costs alone, in one line."""
    return ", ".join(f"{cost.layer} {cost.change:.4f}" for cost in ranked[:SHOWN])


def every(batches: Sequence[CropBatch], crops: int) -> list[CropBatch]:
    """Some of the batches, evenly spaced, with about `crops` crops together."""
    step = max(1, sum(len(batch.spots) for batch in batches) // max(crops, 1))
    return list(batches[::step])
