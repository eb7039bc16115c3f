"""MAL's losses. Probabilities are float32 [B,1,H,W] (or [B,H,W]) in 0..1; results are per sample.

Formulas: Mask Auto-Labeler (arXiv 2301.03992), with the constants of the published implementations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from mal_trt.training.mean_field import MeanField

DICE_EPS = 1e-3


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 - 2<p,q> / (|p|^2 + |q|^2 + 2 eps) over all but the first axis; [B]. Two empty masks cost 1."""
    p, q = probability.flatten(1), target.flatten(1)
    overlap = (p * q).sum(1)
    return 1 - 2 * overlap / ((p * p).sum(1) + (q * q).sum(1) + 2 * DICE_EPS)


def mil_loss(probability: Tensor, box_mask: Tensor) -> Tensor:
    """Multiple-instance loss: dice of the row maxima plus dice of the column maxima; [B].

    Every row and column of the box must hold some of the object, those outside none.
    """
    over_rows = dice_loss(probability.amax(-2), box_mask.amax(-2))
    over_columns = dice_loss(probability.amax(-1), box_mask.amax(-1))
    return over_rows + over_columns


def warm_up(epoch: int, step: int, steps: int) -> float:
    """Weight of a loss during the first epoch: step/steps up to 1; step counts from 0 in the epoch."""
    return 1.0 if epoch > 0 else min(1.0, step / steps)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, align_corners False, no antialias: the resampling of every published MAL step."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one batch: total = mil + crf, both already weighted."""

    total: Tensor
    mil: Tensor
    crf: Tensor


@dataclass(frozen=True)
class MalLoss:
    """The published objective: MIL on the student, CRF-refined self-training against the teacher."""

    mil_weight: float = 4.0
    crf_weight: float = 0.5
    mil_steps: int = 1000
    crf_steps: int = 4000
    size_ratio: float = 1.0
    mean_field: MeanField = field(default_factory=MeanField)

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        image: Tensor,
        box_mask: Tensor,
        epoch: int,
        step: int,
    ) -> LossTerms:
        """student_logits, teacher_logits: [B,1,h,w]; image: normalised [B,3,S,S]; box_mask: [B,1,S,S] of 0/1.

        epoch, step: epoch and step inside it, both from 0, for the warm-up of the two weights.
        """
        student = student_logits.float().sigmoid()
        teacher = teacher_logits.detach().float().sigmoid()
        height, width = student.shape[-2:]
        mask = resize(box_mask.float(), (height, width))
        mil = mil_loss(student, mask).sum() / (len(student) + 1e-4)
        mil = mil * self.mil_weight * warm_up(epoch, step, self.mil_steps)

        size = (round(height * self.size_ratio), round(width * self.size_ratio))
        p, t, m, colours = (resize(x, size) for x in (student, teacher, box_mask.float(), image.float()))
        refined = self.mean_field((p.detach() + t) / 2, colours, m)
        crf = dice_loss(p, refined).mean() * self.crf_weight * warm_up(epoch, step, self.crf_steps)
        return LossTerms(mil + crf, mil, crf)
