"""The ViT encoders of MAL, on timm's VisionTransformer, in three patch-embedding layouts.

"patch": one 16x16 convolution, as in newer checkpoints. "conv_stem": four strided 3x3 convolutions, as in
older ones, with that code's own position interpolation. "hybrid": ours, a conv stem that also hands its
stride-4 and stride-8 maps to the mask head.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mal_trt.base.errors import InputError

STRIDE = 16
PRETRAINING_SIZE = 224
ViTName = re.compile(r"vit-(?:[a-z0-9]+-)?(tiny|small|base|large|huge)/(14|16)")


@dataclass(frozen=True)
class ViTSize:
    """Width D, number of blocks and of attention heads."""

    width: int
    depth: int
    heads: int


SIZES = {
    "tiny": ViTSize(192, 12, 3),
    "small": ViTSize(384, 12, 6),
    "base": ViTSize(768, 12, 12),
    "large": ViTSize(1024, 24, 16),
    "huge": ViTSize(1280, 32, 16),
}


def is_vit(arch: str) -> bool:
    """Whether `arch` is one of MAL's own names, e.g. "vit-mae-base/16" (else it is a timm name)."""
    return arch.startswith("vit-")


def parse_vit(arch: str) -> tuple[ViTSize, int]:
    """Size and patch side (pixels) of a name such as "vit-deit-tiny/16" or "vit-mae-huge/14"."""
    match = ViTName.fullmatch(arch)
    if match is None:
        raise InputError(
            f"unknown arch {arch!r}; expected vit-[mae|deit-](tiny|small|base|large|huge)/(16|14), "
            "e.g. vit-mae-base/16, or a timm model name"
        )
    return SIZES[match[1]], int(match[2])


def resample_positions(table: Tensor, grid: tuple[int, int], layout: str) -> Tensor:
    """Position table [1, 1+g*g, D] (class row first) resampled to [1, 1+h*w, D] by the layout's own rule.

    "conv_stem" scales by (h + 0.1) / g and uses that factor for the coordinates, as its checkpoints were
    trained; the others follow timm (bicubic, antialiased, by target size).
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if (side, side) == grid:
        return table
    if layout != "conv_stem":
        resampled: Tensor = resample_abs_pos_embed(table, list(grid), num_prefix_tokens=1)
        return resampled
    cls, patches = table[:, :1], table[:, 1:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, D, g, g)
    factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    patches = F.interpolate(patches.float(), scale_factor=factors, mode="bicubic", align_corners=False)
    patches = patches.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)  # (1, h*w, D)
    return torch.cat([cls, patches], dim=1)


class ConvStem(nn.Module):
    """Four times conv3x3 stride 2, GroupNorm(1), GELU, then a 1x1 convolution; widths D/8, D/4, D/2, D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        stages, channels = [], 3
        for out in (width // 8, width // 4, width // 2, width):
            conv = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
            stages.append(nn.Sequential(conv, nn.GroupNorm(1, out, eps=1e-6), nn.GELU()))
            channels = out
        stages[-1].append(nn.Conv2d(width, width, 1))
        self.proj = nn.Sequential(*stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,S,S] -> maps at S/2, S/4, S/8, S/16."""
        maps = []
        for stage in self.proj:
            image = stage(image)
            maps.append(image)
        return maps


class ViT(nn.Module):
    """The parts of timm's ViT that make a dense encoder. Parameter names are the published ones.

    forward: image [B,3,S,S] -> (feature [B,D,S/16,S/16],), and for "hybrid" also the stem's maps
    [B,D/4,S/4,S/4] and [B,D/2,S/8,S/8]. The feature is after the final LayerNorm, class token dropped.
    """

    def __init__(
        self, arch: str, layout: str, crop_size: int, depth: int | None = None, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        size, patch = parse_vit(arch)
        table_size = PRETRAINING_SIZE if layout != "hybrid" else crop_size // STRIDE * patch
        vit = VisionTransformer(
            img_size=table_size,
            patch_size=patch,
            embed_dim=size.width,
            depth=depth or size.depth,
            num_heads=size.heads,
            drop_path_rate=drop_path,
            num_classes=1000 if layout == "patch" else 0,
        )
        self.layout = layout
        self.patch_side = patch
        assert vit.cls_token is not None and vit.pos_embed is not None
        self.cls_token = vit.cls_token
        self.pos_embed = vit.pos_embed
        self.patch_embed = vit.patch_embed if layout == "patch" else ConvStem(size.width)
        self.blocks = vit.blocks
        self.norm = vit.norm
        if layout == "patch":
            self.head = vit.head.requires_grad_(False)  # never used, but every published checkpoint owns it
        self.channels: tuple[int, ...] = (size.width,)
        if layout == "hybrid":
            self.channels = (size.width, size.width // 4, size.width // 2)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position table [1, 1+h*w, D] for a grid of h x w tokens."""
        return resample_positions(self.pos_embed, grid, self.layout)

    def fold_positions(self, grid: tuple[int, int]) -> None:
        """Replace the table by its resampled self, so that no interpolation is left in a traced graph."""
        self.pos_embed = nn.Parameter(self.positions(grid).detach().clone(), requires_grad=False)

    def embed(self, image: Tensor) -> list[Tensor]:
        """Image to maps, the last one [B,D,S/16,S/16] the patch embedding."""
        if isinstance(self.patch_embed, ConvStem):
            maps: list[Tensor] = self.patch_embed(image)
            return maps
        if self.patch_side != STRIDE:
            side = image.shape[-1] // STRIDE * self.patch_side  # one token per 16 crop pixels all the same
            image = F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)
        return [self.patch_embed.proj(image)]

    def tokens(self, embedded: Tensor) -> Tensor:
        """[B,D,h,w] -> tokens after the final LayerNorm [B, 1+h*w, D], class token first."""
        height, width = embedded.shape[-2:]
        x = embedded.flatten(2).transpose(1, 2)  # (B, h*w, D)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions((height, width))
        normed: Tensor = self.norm(self.blocks(x))  # (B, 1+h*w, D)
        return normed

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.embed(image)
        height, width = maps[-1].shape[-2:]
        x = self.tokens(maps[-1])[:, 1:]
        feature = x.reshape(-1, height, width, x.shape[-1]).permute(0, 3, 1, 2)  # (B, D, h, w), channels last
        return (feature, maps[1], maps[2]) if self.layout == "hybrid" else (feature,)

    def freeze(self, stages: tuple[int, ...]) -> None:
        """Stop training of stage 0 (patch embedding) and of blocks i >= 1; negative entries mean nothing."""
        for stage in stages:
            if stage > len(self.blocks):
                raise InputError(f"frozen_stages: {stage} but there are only {len(self.blocks)} blocks")
            if stage >= 0:
                module = self.patch_embed if stage == 0 else self.blocks[stage - 1]
                module.requires_grad_(False)
