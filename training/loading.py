"""A file's tensors put into a network: names matched, position tables resized, all else strict. Files: `checkpoint`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor

from mal_trt.base.errors import InputError
from mal_trt.training.backbones import TimmBackbone
from mal_trt.training.network import MALNetwork
from mal_trt.training.pyramid import PyramidBackbone, TimmEncoder
from mal_trt.training.vit import resample_positions

State = dict[str, Tensor]
SHOWN = 4
ENCODER = "backbone.encoder."
STEM = "backbone.patch_embed.proj.0.0.weight"


@dataclass(frozen=True)
class Loaded:
    """What a load did: tensors set, names left at their initial value, names of the file not used."""

    count: int
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def some(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    listed = list(names)
    more = f", ... ({len(listed)} in all)" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def load_network(network: MALNetwork, state: State, where: str) -> Loaded:
    """Every weight of a MAL network. Only the never used classifier `backbone.head` may be missing."""
    return _copy(network, state, ("backbone.head.",), where, describe(state))


def load_backbone(network: MALNetwork, state: State, where: str) -> Loaded:
    """The encoder alone, from a pretraining file in timm's names; K head and mask head stay as they are.

    Published pretraining files have no conv stem: in the "conv_stem" and "hybrid" layouts it stays random
    too. Left out of the file: its classifier, an MAE decoder, a distillation token.
    """
    optional = ["roi_head.", "mask_head.", "backbone.head."]
    if isinstance(network.backbone, PyramidBackbone):
        return _load_pyramid(network, network.backbone, state, where)
    if isinstance(network.backbone, TimmBackbone):
        chosen = _timm_names(network, state)
    else:
        table = state.get("pos_embed")
        if table is not None and "dist_token" in state:
            state = {**state, "pos_embed": torch.cat([table[:, :1], table[:, 2:]], dim=1)}
        chosen = {f"backbone.{name}": tensor for name, tensor in state.items() if not name.startswith("head.")}
        if network.config.layout != "patch" and STEM not in chosen:
            optional.append("backbone.patch_embed.")
            chosen.pop("backbone.patch_embed.proj.weight", None)
            chosen.pop("backbone.patch_embed.proj.bias", None)
    return _copy(network, chosen, tuple(optional), where, describe(state))


def load_encoder(network: MALNetwork, state: State, where: str) -> Loaded:
    """The encoder alone, from another network of the family: one that has at least its stages, such as mal-lite0 for
    mal-edge. All the rest stays as it is."""
    own = {name for name in network.state_dict() if name.startswith(ENCODER)}
    fresh = tuple(name for name in network.state_dict() if name not in own)
    encoder = {name: tensor for name, tensor in state.items() if name.startswith(ENCODER)}
    return _copy(network, encoder, fresh, where, describe(state))


def _load_pyramid(network: MALNetwork, backbone: PyramidBackbone, state: State, where: str) -> Loaded:
    """The encoder below the fusion, which no pretraining file has."""
    own = {f"backbone.encoder.{name}" for name in backbone.encoder.state_dict()}
    fresh = tuple(name for name in network.state_dict() if name not in own)
    if isinstance(backbone.encoder, TimmEncoder):
        chosen = _timm_names(network, state, "backbone.encoder.net.")
        return _copy(network, chosen, (*(n for n in fresh),), where, describe(state))
    backbone.encoder.load_timm(state, where)
    return Loaded(len(own), fresh, ())


def _timm_names(network: MALNetwork, state: State, prefix: str = "backbone.net.") -> State:
    """A timm state dict under our names; features_only models call "stages.0" "stages_0"."""
    files = {name.replace(".", "_"): tensor for name, tensor in state.items()}
    chosen = {}
    for name in network.state_dict():
        short = name.removeprefix(prefix).removeprefix("model.").replace(".", "_")
        if short in files:
            chosen[name] = files[short]
    return chosen


def _copy(network: MALNetwork, state: State, optional: tuple[str, ...], where: str, looks: str) -> Loaded:
    """Copy what fits; InputError if a name outside the `optional` prefixes is missing or a shape differs."""
    own = network.state_dict()
    missing = [name for name in own if name not in state and not name.startswith(optional)]
    if missing:
        raise InputError(
            f"{where}: lacks {len(missing)} of the {len(own)} tensors of {network.config.arch} "
            f"({network.config.layout} layout): {some(missing)}; the file looks like {looks}"
        )
    ready = {name: _fitted(network, name, tensor, own[name]) for name, tensor in state.items() if name in own}
    wrong = [
        f"{name} is {_shape(tensor)}, expected {_shape(own[name])}"
        for name, tensor in ready.items()
        if tensor.shape != own[name].shape
    ]
    if wrong:
        raise InputError(f"{where}: made for another network than {network.config.arch}: {some(wrong)}")
    network.load_state_dict(ready, strict=False)
    fresh = tuple(name for name in own if name not in ready)
    return Loaded(len(ready), fresh, tuple(name for name in state if name not in own))


def _fitted(network: MALNetwork, name: str, tensor: Tensor, own: Tensor) -> Tensor:
    """A position table resized to the network's grid; any other tensor as it is."""
    if tensor.shape == own.shape:
        return tensor
    if name.endswith("pos_embed") and tensor.ndim == own.ndim == 3 and tensor.shape[2] == own.shape[2]:
        rows, side = tensor.shape[1], isqrt(own.shape[1])
        if not isinstance(network.backbone, TimmBackbone):
            square = isqrt(rows - 1) ** 2 == rows - 1
            return resample_positions(tensor, (side, side), network.config.layout) if square else tensor
        prefix = rows - isqrt(rows) ** 2
        if prefix == own.shape[1] - side**2:
            resized: Tensor = resample_abs_pos_embed(tensor, [side, side], num_prefix_tokens=prefix)
            return resized
    if name.endswith("relative_position_bias_table") and tensor.ndim == own.ndim == 2:
        window = (isqrt(own.shape[0]) + 1) // 2
        if (2 * window - 1) ** 2 == own.shape[0] and tensor.shape[1] == own.shape[1]:
            bias: Tensor = resize_rel_pos_bias_table(tensor, (window, window), tuple(own.shape))
            return bias
    return tensor


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


# First match wins: (beginning of a tensor's name, what has such tensors).
LOOKS = (
    ("decoder_blocks.", "a masked autoencoder with its decoder"),
    ("image_encoder.", "Segment Anything"),
    ("model.0.conv.", "an Ultralytics YOLO model"),
    ("roi_heads.", "a torchvision detector"),
    ("transformer.encoder.layers.", "a DETR model"),
    ("visual.", "a CLIP model"),
    ("roi_head.mlp1.", "a MAL network"),
    ("student.", "a MAL checkpoint with another backbone"),
    ("layer1.0.", "a ResNet"),
    ("backbone.", "a detector or segmenter with a backbone of its own"),
    ("blocks.0.", "a vision transformer"),
)


def describe(state: State) -> str:
    """What a state dict looks like, for a message."""
    guess = next((what for start, what in LOOKS if any(name.startswith(start) for name in state)), None)
    names = some(state)
    return f"{guess} ({names})" if guess else f"an unknown model with the tensors {names}"
