"""Any encoder with maps at S/4, S/8, S/16 and S/32 as MAL's backbone: fused at S/16 by a few ViT blocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mal_trt.base.errors import InputError
from mal_trt.training.augment import MEAN, STD
from mal_trt.training.heads import resize
from mal_trt.training.lite import VARIANTS, LiteEncoder

ARCH = re.compile(rf"mal-({'|'.join(VARIANTS)})|mal-timm:(.+)")
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Fusion:
    """Width of the fused map, and the ViT blocks that look at it, with their heads."""

    width: int = 192
    heads: int = 3
    blocks: int = 2


FUSIONS: Mapping[str, Fusion] = {"mal-edge": Fusion(128, 2, 1), "mal-nano": Fusion(96, 2, 1)}


def fusion(arch: str) -> Fusion:
    """How an arch of this family fuses its maps."""
    return FUSIONS.get(arch, Fusion())


def is_pyramid(arch: str) -> bool:
    """Whether an arch name is of this family: "mal-lite0", "mal-edge" or "mal-timm:<timm's name>"."""
    return arch.startswith("mal-")


class TimmEncoder(nn.Module):
    """A timm model's last maps at S/4 ... S/32. Its batch norm keeps the statistics it came with."""

    def __init__(self, name: str, crop_size: int) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise InputError(f"arch mal-timm:{name}: timm does not know {name!r}; see timm.list_models()")
        self.net, picked = _create(name, crop_size)
        self.picked = picked
        self.channels = tuple(int(self.net.feature_info.channels()[index]) for index in picked)
        self.mean, self.std = (tuple(map(float, self.net.pretrained_cfg[key])) for key in ("mean", "std"))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.net(x)
        found = [maps[index] for index in self.picked]
        return [
            m if m.shape[1] == channels else m.permute(0, 3, 1, 2)
            for m, channels in zip(found, self.channels, strict=True)
        ]

    def train(self, mode: bool = True) -> TimmEncoder:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def freeze(self, stages: tuple[int, ...]) -> None:
        """A timm encoder is trained whole: only (-1,), nothing frozen, is accepted."""
        if any(stage >= 0 for stage in stages):
            raise InputError("frozen_stages is for vit-* and mal-lite* architectures; a timm encoder is trained whole")


def _create(name: str, crop_size: int) -> tuple[Any, list[int]]:
    """(timm model that returns its maps, the indices of those at S/4 ... S/32)."""
    strides: list[int] = []
    for options in ({"img_size": crop_size}, {}):
        try:
            net = timm.create_model(name, pretrained=False, features_only=True, **options)
            strides = list(net.feature_info.reduction())
            break
        except (TypeError, AttributeError, RuntimeError, AssertionError, ValueError):
            continue
    last = {stride: index for index, stride in enumerate(strides)}
    if not all(stride in last for stride in STRIDES):
        has = ", ".join(map(str, strides)) or "none"
        raise InputError(
            f"arch mal-timm:{name}: needs maps at strides 4, 8, 16 and 32, and {name} has {has}; "
            f"take a convolutional or hierarchical model, or {name} itself without mal-timm:"
        )
    return net, [last[stride] for stride in STRIDES]


class PyramidBackbone(nn.Module):
    """ImageNet-normalised image [B,3,S,S] -> (fused [B,D,S/16,S/16], map at S/4, map at S/8); D: see `fusion`.

    The maps at S/16 and, if there is one, S/32 are projected and added, a depthwise 3x3 convolution tells positions
    apart, and ViT blocks look at the whole crop.
    """

    rescale: Tensor
    reshift: Tensor

    def __init__(self, arch: str, crop_size: int, blocks: int | None = None, drop_path: float = 0.0) -> None:
        super().__init__()
        found = ARCH.fullmatch(arch)
        if found is None:
            raise InputError(
                f"unknown arch {arch!r}: expected {', '.join(f'mal-{name}' for name in VARIANTS)} "
                "or mal-timm:<timm's name>"
            )
        self.encoder: LiteEncoder | TimmEncoder
        self.encoder = LiteEncoder(found[1]) if found[1] else TimmEncoder(found[2], crop_size)
        quarter, eighth, sixteenth, *coarsest = self.encoder.channels
        own = fusion(arch)
        width = own.width
        self.channels: tuple[int, ...] = (width, quarter, eighth)
        self.in16 = nn.Conv2d(sixteenth, width, 1)
        self.in32 = nn.Conv2d(coarsest[0], width, 1) if coarsest else None
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        nn.init.zeros_(self.position.weight)
        assert self.position.bias is not None
        nn.init.zeros_(self.position.bias)
        count = own.blocks if blocks is None else blocks
        self.blocks = nn.ModuleList(
            Block(width, own.heads, mlp_ratio=2.0, qkv_bias=True, drop_path=drop_path) for _ in range(count)
        )
        self.norm = nn.GroupNorm(1, width)
        # From the normalisation that every network of ours gets to the one the encoder was trained with.
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.encoder.mean, self.encoder.std))
        self.register_buffer("rescale", STD[None] / std, persistent=False)
        self.register_buffer("reshift", (MEAN[None] - mean) / std, persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        quarter, eighth, sixteenth, *coarsest = self.encoder(image * self.rescale + self.reshift)
        height, width = sixteenth.shape[-2:]
        x = self.in16(sixteenth)
        if self.in32 is not None:
            x = x + resize(self.in32(coarsest[0]), (height, width))
        x = x + self.position(x)
        if len(self.blocks):
            tokens = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
            for block in self.blocks:
                tokens = block(tokens)
            x = tokens.transpose(1, 2).reshape(-1, x.shape[1], height, width)
        return self.norm(x), quarter, eighth

    def freeze(self, stages: tuple[int, ...]) -> None:
        """See the encoder's own."""
        self.encoder.freeze(stages)
