"""MAL's heads: the K head (one vector per object), the V head (dense features), our narrow hybrid one."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, align_corners False, no antialias: the only interpolation MAL uses."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def dot(k: Tensor, v: Tensor) -> Tensor:
    """Per-pixel dot product of k [B,C] and v [B,C,h,w] -> [B,1,h,w]."""
    height, width = v.shape[-2:]
    return torch.matmul(k.unsqueeze(1), v.flatten(2)).reshape(-1, 1, height, width)


class KHead(nn.Module):
    """Mean over the grid -> Linear -> ReLU -> Linear: [B,D,h,w] -> [B,out]."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.mlp1 = nn.Linear(channels, hidden)
        self.mlp2 = nn.Linear(hidden, out)

    def forward(self, feature: Tensor) -> Tensor:
        return self.mlp2(F.relu(self.mlp1(feature.mean(dim=(2, 3)))))  # type: ignore[no-any-return]


class ConvReLU(nn.Module):
    """conv3x3 with bias, then ReLU; Kaiming normal (fan out), bias 0. Its weights are named `conv`."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class VHead(nn.Module):
    """`num_convs` ConvReLU, enlarged before the one of index 3: [B,D,g,g] -> [B,out,g*ratio,g*ratio]."""

    UPSAMPLE_BEFORE = 3

    def __init__(self, channels: int, hidden: int, out: int, num_convs: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        widths = [channels] + [hidden] * (num_convs - 1) + [out]
        self.convs = nn.ModuleList(ConvReLU(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for index, conv in enumerate(self.convs):
            if index == self.UPSAMPLE_BEFORE:
                height, width = x.shape[-2:]
                x = resize(x, (_scaled(height, self.ratio), _scaled(width, self.ratio)))
            x = conv(x)
        return x


def _scaled(side: int, ratio: float) -> int:
    """side * ratio, kept in integers when it can be: `side` is symbolic while a graph is traced."""
    return side * int(ratio) if float(ratio).is_integer() else int(side * ratio)


class HybridHead(nn.Module):
    """Narrow mask head fed by the encoder's feature and by the stem's stride-4 and stride-8 maps.

    forward(features, k, grid): features = (S/16, S/4, S/8 maps), k [B,width] -> logits [B,1,2*grid,2*grid].
    The dot product is scaled by 1/sqrt(width) and has a learned bias, for training from scratch.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels[0], width, 1)
        self.skip4 = nn.Conv2d(channels[1], width, 1)
        self.skip8 = nn.Conv2d(channels[2], width, 1)
        self.convs = nn.ModuleList(ConvReLU(width, width) for _ in range(4))
        self.bias = nn.Parameter(torch.zeros(1))
        self.scale = width**-0.5

    def forward(self, features: tuple[Tensor, ...], k: Tensor, grid: tuple[int, int]) -> Tensor:
        feature, stem4, stem8 = features
        # A 1x1 convolution commutes with bilinear resizing: project where the map is small.
        x = resize(self.reduce(feature), grid) + resize(self.skip8(stem8), grid)
        for conv in self.convs[:3]:
            x = conv(x)
        double = (grid[0] * 2, grid[1] * 2)
        x = resize(x, double) + self.skip4(resize(stem4, double))
        v = self.convs[3](x)
        return dot(k * self.scale, v) + self.bias
