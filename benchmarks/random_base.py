"""A checkpoint with seeded random weights, to measure files and builds of a network nobody trained here.

python benchmarks/random_base.py --out base.pth [--arch vit-mae-base/16] [--size 224]
mal-trt export base.pth -o base.onnx --head fixed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit-mae-base/16")
    parser.add_argument("--size", type=int, default=224, help="side of the crops, pixels")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    config = NetworkConfig(arguments.arch, "patch", arguments.size, adjust_scale=False)
    network = build_network(config).eval()
    # Position tables start all but zero; trained ones do not stay so.
    torch.nn.init.normal_(network.backbone.pos_embed, std=0.5)
    save_checkpoint(arguments.out, config, student=network.state_dict(), teacher=network.state_dict())


if __name__ == "__main__":
    main()
