"""The optimiser's parameter groups: what is trained, and at which share of the rate."""

from __future__ import annotations

import re
from typing import Any

import torch

from mal_trt.base.errors import InputError
from mal_trt.training.config import TrainConfig
from mal_trt.training.network import MALNetwork
from mal_trt.training.pyramid import PyramidBackbone
from mal_trt.training.vit import ViT

ENCODER = "backbone.encoder."
FIRST = ("backbone.patch_embed.", "backbone.cls_token", "backbone.pos_embed")


def parameter_groups(
    network: MALNetwork,
    layer_decay: float = 1.0,
    encoder_lr: float = 1.0,
    encoder_weight_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups with an `lr_scale`: 1 for the heads and the final norm, times `layer_decay` for each block below.

    Of a pyramid: the encoder with `encoder_lr` and, if given, a weight decay of its own, and all the rest.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if isinstance(network.backbone, PyramidBackbone):
        if layer_decay != 1.0:
            raise InputError("layer_decay is for vit-* architectures; a pyramid has encoder_lr")
        encoder = [p for name, p in trained.items() if name.startswith(ENCODER)]
        rest = [p for name, p in trained.items() if not name.startswith(ENCODER)]
        own = {} if encoder_weight_decay is None else {"weight_decay": encoder_weight_decay}
        groups = [{"params": encoder, "lr_scale": encoder_lr, **own}, {"params": rest, "lr_scale": 1.0}]
        return [group for group in groups if group["params"]]
    if encoder_lr != 1.0 or encoder_weight_decay is not None:
        raise InputError(f"encoder_lr and encoder_weight_decay are for mal-* archs, not for {network.config.arch!r}")
    if layer_decay == 1.0:
        return [{"params": list(trained.values()), "lr_scale": 1.0}]
    if not isinstance(network.backbone, ViT):
        raise InputError(f"layer_decay is for vit-* architectures, not for {network.config.arch!r}; leave it at 1")
    top = len(network.backbone.blocks) + 1
    by_depth: dict[int, list[Any]] = {}
    for name, parameter in trained.items():
        block = re.match(r"backbone\.blocks\.(\d+)\.", name)
        depth = int(block[1]) + 1 if block else 0 if name.startswith(FIRST) else top
        by_depth.setdefault(depth, []).append(parameter)
    return [{"params": by_depth[d], "lr_scale": layer_decay ** (top - d)} for d in sorted(by_depth)]


def build_optimizer(network: MALNetwork, config: TrainConfig, base: float) -> torch.optim.AdamW:
    """AdamW with the base rate in every group, times its `lr_scale`."""
    groups = parameter_groups(network, config.layer_decay, config.encoder_lr, config.encoder_weight_decay)
    for group in groups:
        group["lr"] = base * group["lr_scale"]
    return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)
