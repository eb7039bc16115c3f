"""Depthwise convolution whose weights are not trained: its backward is a forward convolution, fast on a CPU in bf16."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class FrozenDepthwise(torch.autograd.Function):
    """x [B,C,H,W], weight [C,1,k,k], bias [C] -> conv2d with groups C; only x gets a gradient.

    PyTorch's own backward of a grouped convolution falls back to a slow path on CPUs. The gradient with respect to x of
    a convolution is the convolution of the gradient (spread out by the stride) with the turned kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.shape = stride, padding, x.shape
        return F.conv2d(x, weight, bias, stride, padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        kernel = weight.shape[-1]
        if ctx.stride > 1:
            batch, channels, height, width = ctx.shape
            rows, columns = (side + 2 * ctx.padding - kernel + 1 for side in (height, width))
            spread = torch.zeros((batch, channels, rows, columns), dtype=gradient.dtype, device=gradient.device)
            spread = spread.contiguous(memory_format=torch.channels_last)
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
            gradient = spread
        back = kernel - 1 - ctx.padding
        turned = weight.flip(2, 3).to(gradient.dtype)
        return F.conv2d(gradient, turned, None, 1, back, groups=len(weight)), None, None, None, None
