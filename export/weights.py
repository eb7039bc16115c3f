"""Storing weights in half precision while computing in single: half the file, the same graph."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mal_trt.base.errors import RunError

# Smaller tensors (norms, biases) are not worth a Cast each.
AT_LEAST = 1024


def round_weights(network: nn.Module) -> None:
    """Round the weights of every Linear and convolution to FP16 in place; they stay FP32 tensors."""
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.weight.numel() >= AT_LEAST:
                rounded = module.weight.half().float()
                if not torch.isfinite(rounded).all():
                    raise RunError(f"{name}.weight does not fit FP16; export without --fp16-weights")
                module.weight.copy_(rounded)


def store_half(model: onnx.ModelProto) -> int:
    """Store as FP16, behind a Cast, every FP32 initialiser that FP16 holds exactly; returns how many.

    Exactness makes it independent of names: after `round_weights` it is the Linears' and convolutions' weights.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < AT_LEAST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}/Cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return len(casts)
