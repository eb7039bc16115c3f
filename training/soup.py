"""The mean of several runs' weights: one network with less of each run's noise, at the price of one.

Only runs that began with the same weights lie close enough for it (model soups, Wortsman et al., arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.exported import read_start


def average(checkpoints: Sequence[Path], path: Path) -> Path:
    """Write a checkpoint whose student and teacher are the mean of the checkpoints' teachers, in FP32.

    checkpoints: of ours, exported models, or "bundled", all of one network; configuration and provenance are those of
    the first one. InputError for another network.
    """
    sources = [read_start(checkpoint) for checkpoint in checkpoints]
    states = [source.teacher or source.student or {} for source in sources]
    first, config = states[0], sources[0].config
    if config is None or not first:
        raise InputError(f"{checkpoints[0]}: holds no whole network")
    for checkpoint, state in zip(checkpoints, states, strict=True):
        if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in first.items()}:
            raise InputError(f"{checkpoint}: holds another network than {checkpoints[0]}; weights have no mean")
    mean = {n: torch.stack([state[n].double() for state in states]).mean(0).to(first[n].dtype) for n in first}
    save_checkpoint(path, config, student=mean, teacher=mean, meta=sources[0].meta)
    return path
