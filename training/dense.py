"""The network that another was pruned from, as its teacher: crop by crop the pruned one is to give its masks again."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import load_into
from mal_trt.training.exported import read_start
from mal_trt.training.losses import LossTerms, dice_loss
from mal_trt.training.network import MALNetwork, build_network


class Dense:
    """A whole network from a checkpoint (its student, if it has two) or an exported model, which is not trained."""

    def __init__(self, path: Path, device: torch.device) -> None:
        source = read_start(path)
        if source.config is None or source.backbone is not None:
            raise InputError(f"{path}: holds only an encoder; what teaches a pruned network is a whole one")
        self.network: MALNetwork = build_network(source.config).eval().requires_grad_(False)
        load_into(self.network, source, "student")
        self.network.to(device).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, image: Tensor, area: Tensor) -> Tensor:
        """ImageNet-normalised crops [B,3,S,S] and areas [B] -> logits [B,1,S/4,S/4]."""
        logits: Tensor = self.network(image, area)
        return logits


def dense_loss(logits: Tensor, dense: Tensor) -> LossTerms:
    """Dice and cross entropy of the logits [B,1,h,w] with the probabilities of the dense network's, over the crop."""
    target = dense.float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target)
    # Soft masks are at a dice above 0 even from themselves: what counts is the distance from that.
    least = dice_loss(target, target)
    total = entropy + (dice_loss(logits.float().sigmoid(), target) - least).mean()
    return LossTerms(total, total.detach() * 0, total)
