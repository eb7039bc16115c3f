"""What the two scripts of other quantisers share; needs numpy and onnx only, so it runs in their environments."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

OPERATORS = ("Conv", "MatMul", "Gemm")


def plain(source: Path, out: Path) -> Path:
    """Write the model as the tools expect it: FP16-stored weights become FP32 initialisers instead of Casts."""
    model = onnx.load(source)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        tensor = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT16:
            kept.append(node)
            continue
        values = numpy_helper.to_array(tensor).astype(np.float32)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    # quantize_static copies a shared initialiser `val_18` as `val_182`, which may be another value's name already.
    for tensor in graph.initializer:
        for node in graph.node:
            node.input[:] = [f"{name}.w" if name == tensor.name else name for name in node.input]
        tensor.name += ".w"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, out)
    return out


def layers(path: Path) -> dict[str, str]:
    """Name and operator of the layers that `mal-trt calibrate` quantises by default: of a ViT its Linears, of a
    convolutional encoder everything with weights, the mask head included."""
    graph = onnx.load(path).graph
    weights = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found = {
        node.name: node.op_type
        for node in graph.node
        if node.op_type in OPERATORS
        and weights.get(node.input[1], 0) >= 2
        and (".backbone." in node.name or (node.op_type == "Conv" and ".mask_head." in node.name))
    }
    if any(op == "Conv" and ".backbone.encoder." in name for name, op in found.items()):
        return found
    return {name: op for name, op in found.items() if op != "Conv"}


def give_metadata(path: Path, source: Path) -> None:
    """Copy our metadata, which the tools drop, into their file: without it no runtime of ours opens it."""
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    document = json.loads(facts["mal_trt"])
    document["precision"] = "int8"
    facts["mal_trt"] = json.dumps(document, sort_keys=True)
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, path)


def timed(name: str, work: Callable[[], Any]) -> dict[str, Any]:
    """Run one quantisation; its seconds, the peak memory of the process so far, and the error if it failed."""
    began = time.perf_counter()
    error = None
    try:
        work()
    except Exception as failure:  # a tool that fails is a result, too
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]}"
    figures: dict[str, Any] = {
        "name": name,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    if error is not None:
        figures["error"] = error
    print(figures, flush=True)
    return figures


def write(path: Path, figures: dict[str, Any]) -> None:
    """The figures as JSON."""
    path.write_text(json.dumps(figures, indent=1) + "\n")
