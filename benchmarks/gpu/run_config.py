"""Trains a pickled TrainConfig that train.py wrote: python benchmarks/gpu/run_config.py FILE."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from mal_trt.training.loop import train

if __name__ == "__main__":
    config = torch.load(sys.argv[1], weights_only=False)
    torch.set_num_threads(2)
    train(replace(config, resume=True))
