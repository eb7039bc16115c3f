"""The optimiser's parameter groups: what is trained, and at which share of the rate."""

from __future__ import annotations

import re
from typing import Any

import torch

from mal_trt.base.errors import InputError
from mal_trt.training.config import TrainConfig
from mal_trt.training.network import MALNetwork
from mal_trt.training.vit import ViT

FIRST = ("backbone.patch_embed.", "backbone.cls_token", "backbone.pos_embed")


def parameter_groups(network: MALNetwork, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Groups with an `lr_scale`: 1 for the heads and the final norm, times `layer_decay` for each block below."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if layer_decay == 1.0:
        return [{"params": list(trained.values()), "lr_scale": 1.0}]
    if not isinstance(network.backbone, ViT):
        raise InputError(f"layer_decay is for vit-* architectures, not for {network.config.arch!r}; leave it at 1")
    top = len(network.backbone.blocks) + 1
    groups: dict[int, list[Any]] = {}
    for name, parameter in trained.items():
        block = re.match(r"backbone\.blocks\.(\d+)\.", name)
        depth = int(block[1]) + 1 if block else 0 if name.startswith(FIRST) else top
        groups.setdefault(depth, []).append(parameter)
    return [{"params": groups[d], "lr_scale": layer_decay ** (top - d)} for d in sorted(groups)]


def build_optimizer(network: MALNetwork, config: TrainConfig, base: float) -> torch.optim.AdamW:
    """AdamW with the base rate in every group, times its `lr_scale`."""
    groups = parameter_groups(network, config.layer_decay)
    for group in groups:
        group["lr"] = base * group["lr_scale"]
    return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)
