"""A checkpoint of a ViT so small that it is exported in a second, and its networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network

SIZE = 64


def make(folder: Path, layout: str = "patch", **options: Any) -> tuple[Path, dict[str, MALNetwork]]:
    torch.manual_seed(7)
    options = {"mask_head_hidden_channel": 32, "mask_head_out_channel": 32, "depth": 1, **options}
    config = NetworkConfig("vit-deit-tiny/16", layout, SIZE, **options)
    networks = {part: build_network(config).eval() for part in ("student", "teacher")}
    for network in networks.values():  # position tables start all but zero, which would hide a wrong fold
        torch.nn.init.normal_(network.backbone.pos_embed, std=0.5)
    path = folder / f"{layout}.pth"
    save_checkpoint(path, config, **{part: network.state_dict() for part, network in networks.items()})
    return path, networks
