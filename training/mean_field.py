"""MAL's mean field: a colour CRF without unary term, started from a soft mask and kept inside the box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class MeanField:
    """zeta: colour bandwidth, in the units of the image given. kernel_size: odd window side in pixels."""

    zeta: float = 0.1
    kernel_size: int = 3
    iterations: int = 100
    low: float = 0.1
    high: float = 0.9

    @torch.no_grad()
    def __call__(self, start: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hard mask (float 0/1) where the converged foreground exceeds one half.

        start: foreground probability [B,1,H,W]. image: [B,3,H,W]. mask: 0..1 [B,1,H,W], or None for all ones.
        """
        return (self.soft(start, image, mask) > 0.5).float()

    @torch.no_grad()
    def soft(self, start: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """The foreground probability [B,1,H,W] after the last iteration, clamped to low..high.

        One step multiplies the neighbours' probabilities, each to the power of its colour weight; done in logs.
        The neighbours are shifted views of one padded buffer: nothing of k*k times the size is ever made.
        """
        radius = self.kernel_size // 2
        height, width = start.shape[-2:]
        weights = self.kernel(image).transpose(0, 1).contiguous()  # (k*k, B, H, W): each weight's map in one piece
        inside = (torch.ones_like(start) if mask is None else mask)[:, 0]
        q = (start[:, 0] * inside).clamp(self.low, self.high)
        logs = torch.stack([q, q])  # (background and foreground, B, H, W)
        # A border of zero logs gives neighbours outside the image no weight.
        padded = F.pad(logs, (radius,) * 4)
        centre = padded[..., radius : radius + height, radius : radius + width]
        neighbours = [
            (padded[..., dy : dy + height, dx : dx + width], weights[dy * self.kernel_size + dx])
            for dy in range(self.kernel_size)
            for dx in range(self.kernel_size)
            if (dy, dx) != (radius, radius)
        ]
        for _ in range(self.iterations):
            torch.sub(1, q, out=logs[0])
            logs[1].copy_(q)
            centre.copy_(logs.log_())
            for values, weight in neighbours:
                logs.addcmul_(values, weight)  # the centre, of weight 1, is there already
            background, foreground = logs.exp_()
            foreground.mul_(inside)
            background.add_(foreground).add_(1e-6)
            torch.div(foreground, background, out=q).clamp_(self.low, self.high)
        return q[:, None]

    def kernel(self, image: Tensor) -> Tensor:
        """Weights [B,k*k,H,W] of the neighbours, row-major; the centre weighs 1, outside the image 0."""
        batch, _, height, width = image.shape
        radius = self.kernel_size // 2
        padded = F.pad(image, (radius,) * 4)
        inside = F.pad(torch.ones_like(image[:1, :1]), (radius,) * 4)
        weights = image.new_empty(batch, self.kernel_size**2, height, width)
        for i in range(self.kernel_size**2):
            dy, dx = divmod(i, self.kernel_size)
            window = (..., slice(dy, dy + height), slice(dx, dx + width))
            distance = (padded[window] - image).square_().sum(1)
            weights[:, i] = torch.exp(-distance / (2 * self.zeta**2)) * inside[window][:, 0]
        return weights
