"""MAL's learning-rate schedule and teacher update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class CosineSchedule:
    """Linear warm-up, then a cosine from `base` to `minimum`; times are fractional epochs."""

    base: float
    minimum: float
    epochs: float
    warmup_epochs: float = 1.0
    waves: float = 1.0

    def __call__(self, epoch: float) -> float:
        """Learning rate at a fractional epoch."""
        if epoch < self.warmup_epochs:
            return self.base * epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.minimum + (self.base - self.minimum) / 2 * (1 + math.cos(math.pi * progress * self.waves))


def momentum_at(progress: float, start: float, end: float | None) -> float:
    """The teacher's momentum after a share of the run: `start`, or along a cosine from there to `end`."""
    if end is None:
        return start
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher = momentum * teacher + (1 - momentum) * student, for all parameters (not buffers)."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
