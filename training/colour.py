"""A global colour term for the self-training target: soft GrabCut, batched.

MAL's mean field compares a pixel with its eight neighbours only. This term compares it with the whole object
and the whole surroundings: two smoothed RGB histograms weighted by the current soft mask. Not part of
published MAL; used for the bundled model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from mal_trt.training.augment import MEAN, STD
from mal_trt.training.losses import LossTerms, dice_loss, mil_loss, resize
from mal_trt.training.mean_field import MeanField


@torch.no_grad()
def colour_likelihood(mask: Tensor, image: Tensor, bins: int = 20) -> Tensor:
    """Probability [B,1,H,W] that a pixel's colour belongs to the object rather than to its surroundings.

    mask: soft object mask [B,1,H,W]. image: RGB in 0..1, [B,3,H,W]. h = f / (f + g) with f, g the object's and
    the rest's colour densities on a bins^3 grid, smoothed twice by a 3-bin triangle along each axis.
    """
    batch, _, height, width = mask.shape
    level = (image.clamp(0, 1) * (bins - 1)).round_().long()
    cell = (level[:, 0] * bins + level[:, 1]) * bins + level[:, 2]
    cell = cell.flatten(1)
    weight = mask.flatten(2)
    weights = torch.cat([weight, 1 - weight], 1)
    density = mask.new_zeros(batch, 2, bins**3)
    density.scatter_add_(2, cell[:, None].expand(-1, 2, -1), weights)
    density = _smooth(_smooth(density.view(batch * 2, 1, bins, bins, bins))).view(batch, 2, -1)
    density = density / weights.sum(2, keepdim=True).clamp_min(1e-6)
    object_, rest = density.gather(2, cell[:, None].expand(-1, 2, -1)).unbind(1)
    return (object_ / (object_ + rest + 1e-12)).view(batch, 1, height, width)


def _smooth(grid: Tensor) -> Tensor:
    kernel = grid.new_tensor([0.25, 0.5, 0.25])
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = 3
        padding = [0, 0, 0]
        padding[axis] = 1
        grid = F.conv3d(grid, kernel.view(shape), padding=padding)
    return grid


@dataclass(frozen=True)
class ColourBatch:
    """What a batch knows of its objects.

    mask: float [B,1,S,S], the box or, where `exact` (bool [B]), the object. prior: 0..1 [B,1,S,S], where `has_prior`.
    trust: float [B], the weight of that prior as a target, 0..1; None is 1.
    """

    mask: Tensor
    exact: Tensor
    prior: Tensor
    has_prior: Tensor
    trust: Tensor | None = None


@dataclass(frozen=True)
class ColourLoss:
    """MIL on the box, dice against a target from colour likelihood and mean field, exact masks where given.

    The target's starting point is the mean of student and teacher as in MAL; with weight `ramp` it is pulled to
    likelihood^a * mask^(1-a), then mixed with the prior where there is one; the mean field runs on the clean crop.

    colour: a at the run's start and end. prior_weight: of the prior, likewise. soft: priors are an ensemble's masks
    and themselves the target, by dice and cross entropy; boxes without one get half the self-training.
    """

    mil_weight: float = 4.0
    crf_weight: float = 2.0
    prior_weight: tuple[float, float] = (0.6, 0.2)
    colour: tuple[float, float] = (0.5, 0.5)
    soft: bool = False
    mean_field: MeanField = field(default_factory=lambda: MeanField(zeta=0.4, iterations=20))

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        crop: Tensor,
        samples: ColourBatch,
        ramp: float,
        progress: float,
    ) -> LossTerms:
        """student_logits, teacher_logits: [B,1,h,w]. crop: clean RGB 0..1 [B,3,S,S].

        ramp: weight of the target, 0..1. progress: share of the run done, over which priors lose weight.
        """
        logits = student_logits.float()
        student, teacher = logits.sigmoid(), teacher_logits.float().sigmoid()
        size = (student.shape[-2], student.shape[-1])
        mask, prior = resize(samples.mask, size), resize(samples.prior, size)
        exact, boxed = samples.exact, ~samples.exact
        mil = crf = drawn = logits.sum() * 0
        if boxed.any():
            mil = mil_loss(student[boxed], mask[boxed]).mean() * self.mil_weight * boxed.float().mean()
        own = boxed & ~samples.has_prior if self.soft else boxed
        if own.any():
            p, box = student[own], mask[own]
            weight = samples.has_prior[own].float().view(-1, 1, 1, 1) * _between(self.prior_weight, progress)
            q = (p.detach() + teacher[own]) / 2 * box
            a = _between(self.colour, progress)
            target = self.target(q, resize(crop[own], size), box, prior[own], weight, ramp, a)
            crf = dice_loss(p, target).mean() * self.crf_weight * ramp * own.float().mean()
            crf = crf / 2 if self.soft else crf
        learnt = boxed & samples.has_prior
        if self.soft and learnt.any():
            trust = torch.ones_like(learnt, dtype=torch.float) if samples.trust is None else samples.trust
            pulled = _supervised(logits[learnt], prior[learnt] * mask[learnt], trust[learnt])
            drawn = drawn + pulled * 2 * learnt.float().mean()
        if exact.any():
            drawn = drawn + _supervised(logits[exact], mask[exact]) * 2 * exact.float().mean()
        return LossTerms(mil + crf + drawn, mil, crf + drawn)

    @torch.no_grad()
    def target(
        self, q: Tensor, crop: Tensor, box: Tensor, prior: Tensor, weight: Tensor, ramp: float, colour: float = 0.5
    ) -> Tensor:
        """The pseudo-mask (float 0/1, [B,1,h,w]) the student is pulled to, from the soft mask q inside the box.

        weight: of the prior, [B,1,1,1]. colour: exponent of the colour likelihood, 0 leaves it out.
        """
        if colour > 0:
            q = q * (1 - ramp) + colour_likelihood(q, crop) ** colour * q ** (1 - colour) * ramp
        q = q * (1 - weight) + prior * box * weight
        return self.mean_field(q, (crop - MEAN.to(crop)) / STD.to(crop), box)


def _supervised(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Dice plus cross entropy against a target of 0..1, the mean over samples; weight: of each sample, [B]."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).mean(1)
    each = dice_loss(logits.sigmoid(), target) + entropy
    return (each if weight is None else each * weight).mean()


def _between(ends: tuple[float, float], progress: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * progress
