"""Weights back out of a file of `mal-trt export`: training goes on from a model whose checkpoint is not at hand."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from mal_trt.artifacts.contract import REEXPORT, Contract
from mal_trt.artifacts.models import is_bundled, resolve_model
from mal_trt.artifacts.onnxfile import contract_of
from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import (
    Checkpoint,
    mal_config,
    read_checkpoint,
    read_encoder_hub,
    read_encoder_package,
)
from mal_trt.training.loading import State
from mal_trt.training.network import NetworkConfig
from mal_trt.training.pretrained import hub_name, is_package
from mal_trt.training.pyramid import fusion
from mal_trt.training.sparse import META
from mal_trt.training.vit import PRETRAINING_SIZE, parse_vit, resample_positions

HALF = re.compile(r"[./]fp16$")  # what weights stored in half precision, and those of an FP16 graph, are called
# The exporter writes GroupNorm as a Mul and an Add, whose constants have no name.
GROUP_NORM = re.compile(r"(?:student|teacher)\.backbone\.(?:patch_embed\.proj\.\d\.1|norm)")
PARAMETER = {"Mul": "weight", "Add": "bias"}
TRIMMED = "trimmed"  # fields of the network's configuration, in the contract of one whose widths were cut
NORMALISATION = ("backbone.rescale", "backbone.reshift")


def read_start(path: Path | str) -> Checkpoint:
    """Weights to begin a training with: a checkpoint, an FP32 or FP16 file of `mal-trt export`, "bundled", the name of
    an encoder's package ("efficientnet-lite0"), or that of a timm model with weights in its cache or on its hub."""
    if is_package(str(path)):
        return read_encoder_package(str(path))
    if not os.path.exists(path) and (name := hub_name(str(path))):
        return read_encoder_hub(name)
    if is_bundled(path) or Path(path).suffix.lower() == ".onnx":
        return read_exported(path)
    return read_checkpoint(path)


def read_exported(model: Path | str) -> Checkpoint:
    """The networks in an exported file, in FP32. meta: the thresholds, margin and refinement its masks are made with.

    A position table, which an export resamples to its crops, is brought back to the size that the network keeps; the
    same crops give the same logits. InputError if a file's weights cannot be trained.
    """
    path = resolve_model(model)
    proto, contract = _load(path)
    if contract.precision not in ("fp32", "fp16"):
        raise InputError(
            f"{path}: its weights are rounded to {contract.precision}, which training cannot undo; start from the FP32 "
            "or FP16 file it was made from, or from the checkpoint"
        )
    if contract.layout == "timm" or contract.arch.startswith("mal-timm:"):
        raise InputError(
            f"{path}: export merged the normalisation of {contract.arch} into its convolutions; start from the "
            "checkpoint it was made from"
        )
    tensors = _tensors(proto)
    networks: dict[str, State] = {}
    for part in ("student", "teacher"):
        state = {n.removeprefix(f"{part}."): tensor for n, tensor in tensors.items() if n.startswith(f"{part}.")}
        for name in NORMALISATION:  # a pyramid's own constants, not weights
            state.pop(name, None)
        if state:
            networks[part] = state
    if not networks:
        raise InputError(f"{path}: its weights do not have their modules' names; {REEXPORT}")
    first = next(iter(networks.values()))
    config = replace(
        _config(path, first, contract),
        arch=contract.arch,
        layout=contract.layout,
        crop_size=contract.input_size,
        sizes=contract.sizes,
        adjust_scale=contract.adjust_scale,
    )
    if contract.layout in ("patch", "conv_stem"):
        for state in networks.values():
            state["backbone.pos_embed"] = _own_positions(state["backbone.pos_embed"], contract)
    meta: dict[str, Any] = {
        "thresholds": contract.thresholds,
        "test_margin": contract.margin_rate,
        "refine": contract.refine,
    }
    meta |= {name: contract.extra[name] for name in ("pretrained", META) if name in contract.extra}
    return Checkpoint(path, "onnx", config, networks.get("student"), networks.get("teacher"), meta=meta)


def _config(path: Path, state: State, contract: Contract) -> NetworkConfig:
    """Configuration of an exported network but for what its contract says: read off its tensors, or, of one whose
    widths were cut, as the file tells it."""
    if TRIMMED in contract.extra:
        try:
            return NetworkConfig(**{"arch": contract.arch, "layout": contract.layout, **contract.extra[TRIMMED]})
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: damaged metadata of a pruned network ({error}); export it again") from None
    return _pyramid_config(state, contract.arch) if contract.layout == "pyramid" else mal_config(path, state)


def _pyramid_config(state: State, arch: str) -> NetworkConfig:
    """Configuration of a pyramid network but for the side of its crops."""
    blocks = len({m[1] for name in state if (m := re.match(r"backbone\.blocks\.(\d+)\.", name))})
    width = state["mask_head.reduce.weight"].shape[0]
    own = fusion(arch).blocks
    return NetworkConfig(arch, mask_head_hidden_channel=width, depth=None if blocks == own else blocks)


def _load(path: Path) -> tuple[onnx.ModelProto, Contract]:
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's exceptions share no base class
        raise InputError(f"{path}: not an ONNX file that can be read ({str(error).splitlines()[0]})") from None
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return proto, contract_of(metadata, path)


def _tensors(proto: onnx.ModelProto) -> State:
    """Weights by their modules' names, FP32, of PyTorch's shapes."""
    # A weight may be there in both precisions: the exact one comes last and counts.
    stored = sorted(proto.graph.initializer, key=lambda tensor: HALF.search(tensor.name) is None)
    arrays = {HALF.sub("", tensor.name): numpy_helper.to_array(tensor) for tensor in stored}
    found: dict[str, np.ndarray] = {n: a for n, a in arrays.items() if n.startswith(("student.", "teacher."))}
    for node in proto.graph.node:
        module = node.name.rpartition("/")[0]
        names = [HALF.sub("", name) for name in node.input]
        if node.op_type == "MatMul" and names[1] in found:
            found[names[1]] = arrays[names[1]].T  # stored [in, out]
        elif GROUP_NORM.fullmatch(module) and node.op_type in PARAMETER:
            (constant,) = [arrays[name] for name in names if name in arrays]
            found[f"{module}.{PARAMETER[node.op_type]}"] = constant.reshape(-1)
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in found.items()}


def _own_positions(table: Tensor, contract: Contract) -> Tensor:
    """The table [1, 1+g*g, D] of the pretraining's grid that the network resamples to the one stored."""
    side = PRETRAINING_SIZE // parse_vit(contract.arch)[1]
    grid = contract.input_size // 16
    if side == grid:
        return table
    # Resampling is linear: what it makes of each single position is the matrix to be undone.
    units = torch.cat([torch.zeros(1, 1, side * side), torch.eye(side * side)[None]], dim=1)
    matrix = resample_positions(units, (grid, grid), contract.layout)[0, 1:].double()  # (grid*grid, side*side)
    own = torch.linalg.lstsq(matrix, table[0, 1:].double(), driver="gelsd").solution
    return torch.cat([table[:, :1], own.float()[None]], dim=1)
