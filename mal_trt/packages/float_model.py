"""A model as nvinfer feeds it: one input, float32 pixels 0..255, the mask head's grid baked in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.artifacts.parity_file import parity_bytes, parity_path, read_parity
from mal_trt.backends.onnxruntime import OnnxRuntimeBackend
from mal_trt.base.errors import InputError, RunError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.packages.source import Source

TOLERANCE = 1e-5  # of the logits' range: the same sums, perhaps fused otherwise


def write_float_model(source: Source, size: SizeClass, out: Path) -> Contract:
    """Write the .onnx file, and its parity file where the source has one; returns its contract.

    size: the boxes whose grid is baked into a model that takes it at run time. The logits are compared with the
    source's, RunError if they differ. InputError if the graph uses the pixels as anything but numbers to convert.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise RunError('to package for DeepStream needs onnx; run: pip install "mal-trt[calibrate]"') from None
    model = onnx.load(source.path)
    contract = replace(source.contract, input_dtype="float32")
    inputs = {entry.name: entry for entry in model.graph.input}
    users = {node.op_type for node in model.graph.node if "image" in node.input}
    if "image" not in inputs or (source.contract.input_dtype != "float32" and not users <= {"Cast", "Shape"}):
        raise InputError(f"{source.path}: its pixels cannot become float32; export it with --input-dtype float32")
    inputs["image"].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    if contract.head == "dynamic":
        contract = replace(contract, head=size.name.lower())
        grid = source.contract.grid(size)
        model.graph.input.remove(inputs["head_grid"])
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.zeros((1, 1, grid, grid), np.uint8), "head_grid")
        )
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = contract.to_json()
    onnx.save(model, out)
    _compare(source, out, size)
    _write_parity(parity_path(source.path), parity_path(out), size)
    return contract


def _compare(source: Source, out: Path, size: SizeClass) -> None:
    side = source.contract.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, side, side)).astype(np.uint8)
    before, after = (
        OnnxRuntimeBackend(path, "cpu", None).run(pixels.astype(dtype), size)
        for path, dtype in ((source.path, source.contract.input_dtype), (out, "float32"))
    )
    span = float(before.max() - before.min()) or 1.0
    if before.shape != after.shape or float(np.abs(before - after).max()) > TOLERANCE * span:
        raise RunError(f"{source.path}: its logits changed with float32 pixels; export it with --input-dtype float32")


def _write_parity(source: Path, out: Path, size: SizeClass) -> None:
    """The rows of one size class, where the file has several."""
    if not source.is_file():
        return
    crops = read_parity(source)[0]
    if len(crops.sizes) > 1:
        row = crops.sizes.index(size)
        logits = {name: values[row : row + 1] for name, values in crops.logits.items()}
        crops = replace(crops, sizes=(size,), logits=logits)
    out.write_bytes(parity_bytes([crops]))
