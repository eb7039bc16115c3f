"""What a student pays for differing from its teacher's soft masks, without a drawn mask. MAL's own terms: `losses`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mal_trt.training.losses import LossTerms, dice_loss, mil_loss, resize

BAND = 8  # the band along the edge reaches over a share of 1/BAND of the map


@dataclass(frozen=True)
class DistilLoss:
    """Dice, cross entropy and cross entropy along the edge against a soft mask, times its trust; MIL on the box.

    weight: of the soft masks. mil_weight: of the box term, for all boxes, which is the only one where there is no mask.
    """

    weight: float = 2.0
    mil_weight: float = 1.0

    def __call__(
        self, logits: Tensor, box: Tensor, soft: Tensor, has_soft: Tensor, trust: Tensor, exact: Tensor
    ) -> LossTerms:
        """logits: [B,1,h,w]. box: float [B,1,S,S] of 0/1, the object itself where `exact` (bool [B]). soft: 0..1
        [B,1,S,S], 1 is surely object, where `has_soft` (bool [B]); trust: its weight, float [B]."""
        logits = logits.float()
        size = (logits.shape[-2], logits.shape[-1])
        mask, boxed = resize(box, size), ~exact
        mil = drawn = logits.sum() * 0
        if boxed.any():
            mil = mil_loss(logits[boxed].sigmoid(), mask[boxed]).mean() * self.mil_weight * boxed.float().mean()
        taught = exact | has_soft
        if taught.any():
            # The mean of the pixels of a cell is how much of it the object covers; a single pixel is not.
            target = F.adaptive_avg_pool2d(torch.where(exact.view(-1, 1, 1, 1), box, soft * box), size)
            each = pulled(logits[taught], target[taught]) * torch.where(exact, torch.ones_like(trust), trust)[taught]
            drawn = each.sum() / len(logits) * self.weight
        return LossTerms(mil + drawn, mil, drawn)


def pulled(logits: Tensor, target: Tensor) -> Tensor:
    """Dice, cross entropy over the map and cross entropy along the target's edge, of each sample; [B].

    logits, target (0..1): [B,1,h,w]. A pixel belongs to the edge as far as it differs from the mean around it, as in
    the weighted cross entropy of F3Net (Wei et al., arXiv 1911.11445).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    width = max(3, logits.shape[-1] // BAND) | 1
    edge = (F.avg_pool2d(target, width, 1, width // 2, count_include_pad=False) - target).abs()
    along = (entropy * edge).flatten(1).sum(1) / edge.flatten(1).sum(1).clamp_min(1e-3)
    return dice_loss(logits.sigmoid(), target) + entropy.flatten(1).mean(1) + along
