"""MAL's network: an encoder, a K head and a mask head; one box per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mal_trt.artifacts.contract import LAYOUTS, SKIPPING
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import MEDIUM_AREA, SMALL_AREA, SizeClass
from mal_trt.training.backbones import TimmBackbone
from mal_trt.training.heads import HybridHead, KHead, VHead, dot, resize
from mal_trt.training.pyramid import PyramidBackbone, is_pyramid
from mal_trt.training.vit import STRIDE, ViT, is_vit, parse_vit
from mal_trt.training.widths import trim

SIZELESS = ("pyramid",)  # what they compute of a crop does not depend on its side


@dataclass(frozen=True)
class NetworkConfig:
    """What decides a network's shape. Field names and defaults follow TAO's where it has them.

    arch: "vit-mae-base/16", "vit-deit-tiny/16", ..., "mal-lite0" or "mal-timm:<name>" (layout "pyramid"), or a timm
    model name ("resnet18"; layout "timm").
    crop_size: side S of the square input, pixels; the largest where there are several. sizes: side of the crops of
    small, medium and large boxes, where each has another; only for layouts without a position table. depth: number
    of ViT blocks, None = by arch. mask_head_hidden_channel: also the width of the "hybrid" and "pyramid" heads.
    adjust_scale: mask-head grid by box size; a pyramid has one grid for all. frozen_stages: 0 = patch embedding or
    stem, i = block or stage i, (-1,) = nothing. trimmed: what pruning left of inner widths, (name of the width, how
    much), see `training.widths`.
    """

    arch: str = "vit-mae-base/16"
    layout: str = "patch"
    crop_size: int = 512
    mask_head_num_convs: int = 4
    mask_head_hidden_channel: int = 256
    mask_head_out_channel: int = 256
    adjust_scale: bool = True
    mask_scale_ratio_pre: int = 1
    mask_scale_ratio: float = 2.0
    vit_dpr: float = 0.0
    frozen_stages: tuple[int, ...] = (-1,)
    depth: int | None = None
    sizes: tuple[int, int, int] | None = None
    trimmed: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frozen_stages", tuple(self.frozen_stages))
        object.__setattr__(self, "trimmed", tuple((str(name), int(left)) for name, left in self.trimmed))
        if is_pyramid(self.arch):
            if self.layout not in ("patch", "pyramid"):
                raise InputError(f"layout {self.layout!r} is for vit-* arch names, not for {self.arch!r}")
            object.__setattr__(self, "layout", "pyramid")
            object.__setattr__(self, "adjust_scale", False)
        elif not is_vit(self.arch):
            if self.layout not in ("patch", "timm"):
                raise InputError(f"layout {self.layout!r} is for vit-* arch names, not for {self.arch!r}")
            object.__setattr__(self, "layout", "timm")
        elif self.layout not in LAYOUTS or self.layout in ("timm", "pyramid"):
            raise InputError(f"layout {self.layout!r} of {self.arch!r}: expected patch, conv_stem or hybrid")
        else:
            parse_vit(self.arch)
        step = 2 * STRIDE if self.adjust_scale or self.layout == "pyramid" else STRIDE
        if self.crop_size < step or self.crop_size % step:
            raise InputError(f"crop size {self.crop_size}: expected a multiple of {step}")
        if self.sizes is not None:
            object.__setattr__(self, "sizes", checked_sizes(self.sizes, self.crop_size, step, self.arch, self.layout))
        if self.adjust_scale and (self.mask_scale_ratio_pre, self.mask_scale_ratio) != (1, 2.0):
            raise InputError("scale adjustment needs mask_scale_ratio_pre 1 and mask_scale_ratio 2")
        if self.mask_head_num_convs < 1:
            raise InputError(f"mask_head_num_convs {self.mask_head_num_convs}: expected at least 1")

    def side(self, size: SizeClass) -> int:
        """Side S of the crops of boxes of one size class, pixels."""
        return self.sizes[size] if self.sizes else self.crop_size

    def grid(self, size: SizeClass) -> int:
        """Side of the mask head's grid: S/32, S/16, S/8; without scale adjustment S/16 * ratio_pre, or S/8."""
        side = self.side(size) // STRIDE
        if not self.adjust_scale:
            return side * (2 if self.layout in SKIPPING else self.mask_scale_ratio_pre)
        return side * (1, 2, 4)[size] // 2


class MALNetwork(nn.Module):
    """backbone -> (roi_head: K vector, mask_head: dense features) -> logits.

    State-dict names are the published ones without their `student.` or `teacher.` prefix.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        hidden, out = config.mask_head_hidden_channel, config.mask_head_out_channel
        self.backbone: ViT | TimmBackbone | PyramidBackbone
        if config.layout == "pyramid":
            self.backbone = PyramidBackbone(config.arch, config.crop_size, config.depth, config.vit_dpr)
        elif config.layout == "timm":
            self.backbone = TimmBackbone(config.arch, config.crop_size, config.vit_dpr)
        else:
            self.backbone = ViT(config.arch, config.layout, config.crop_size, config.depth, config.vit_dpr)
        self.mask_head: HybridHead | VHead
        channels = self.backbone.channels
        if config.layout in SKIPPING:
            self.roi_head = KHead(channels[0], 256, hidden)
            self.mask_head = HybridHead(channels, hidden)
            # A fixed random direction to start with: an all but zero K would stall both heads.
            nn.init.trunc_normal_(self.roi_head.mlp2.weight, std=0.02)
            nn.init.normal_(self.roi_head.mlp2.bias, std=0.5)
        else:
            self.roi_head = KHead(channels[0], 256, out)
            self.mask_head = VHead(channels[0], hidden, out, config.mask_head_num_convs, config.mask_scale_ratio)
        self.backbone.freeze(config.frozen_stages)
        trim(self, dict(config.trimmed))

    def encode(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """ImageNet-normalised image [B,3,S,S] -> (feature maps, K vectors [B,C]). All but the mask head."""
        features = self.backbone(image)
        return features, self.roi_head(features[0])

    def decode(self, features: tuple[Tensor, ...], k: Tensor, grid: tuple[int, int]) -> Tensor:
        """Feature maps and K vectors -> logits [B,1,L,L] with the mask head run on one grid (height, width).

        L = S/4 with scale adjustment and for "hybrid" and "pyramid", else 4 * the head's output side (S/2 by default).
        """
        height, width = features[0].shape[-2:]
        if isinstance(self.mask_head, HybridHead):
            logits = self.mask_head(features, k, grid)
        else:
            logits = dot(k, self.mask_head(resize(features[0], grid)))
        if self.config.adjust_scale or self.config.layout in SKIPPING:
            return resize(logits, (height * 4, width * 4))
        return resize(logits, (logits.shape[-2] * 4, logits.shape[-1] * 4))

    def forward_grid(self, image: Tensor, grid: int | tuple[int, int]) -> Tensor:
        """Normalised image [B,3,S,S] -> logits, one mask-head grid for the whole batch."""
        features, k = self.encode(image)
        return self.decode(features, k, grid if isinstance(grid, tuple) else (grid, grid))

    def forward(self, image: Tensor, area: Tensor) -> Tensor:
        """image float [B,3,S,S], ImageNet-normalised; area [B], box area in original square pixels.

        Logits [B,1,S/4,S/4]. Each size class present is one run of the mask head. Bounds are half-open on
        the low side, so a box of exactly 1024 or 9216 px^2 gets logits (the reference leaves it at 0).
        """
        features, k = self.encode(image)
        side = features[0].shape[-1]
        if not self.config.adjust_scale:
            grid = self.config.grid(SizeClass.LARGE) * image.shape[-1] // self.config.crop_size
            return self.decode(features, k, (grid, grid))
        bounds = torch.tensor([SMALL_AREA, MEDIUM_AREA], dtype=torch.float64, device=area.device)
        classes = torch.bucketize(area.double(), bounds)
        order = torch.argsort(classes, stable=True)
        parts, start = [], 0
        for size, count in enumerate(torch.bincount(classes, minlength=len(SizeClass)).tolist()):
            if count:
                rows = order[start : start + count]
                grid = side * 2**size // 2
                parts.append(self.decode(tuple(f[rows] for f in features), k[rows], (grid, grid)))
                start += count
        return torch.cat(parts)[torch.argsort(order)]


def checked_sizes(sizes: Sequence[int], crop_size: int, step: int, arch: str, layout: str) -> tuple[int, int, int]:
    """Sides of the crops of small, medium and large boxes; InputError unless a network of the arch takes them."""
    small, medium, large = sizes
    for side in sizes:
        if side < step or side % step:
            raise InputError(f"sizes {shown_sizes(sizes)}: {side} is not a multiple of {step}, which {arch} needs")
    if not small <= medium <= large:
        raise InputError(f"sizes {shown_sizes(sizes)}: larger boxes need crops that are as large at least")
    if large != crop_size:
        raise InputError(f"crop size {crop_size}: the sizes end with {large}; leave the crop size out")
    if layout not in SIZELESS:
        raise InputError(f"sizes: {arch} has a table of positions for one size; take mal-lite0, or leave the sizes out")
    return small, medium, large


def shown_sizes(sizes: Sequence[int]) -> str:
    """As `--sizes` takes them: small=128,medium=192,large=320."""
    return ",".join(f"{size.name.lower()}={side}" for size, side in zip(SizeClass, sizes, strict=True))


def build_network(config: NetworkConfig) -> MALNetwork:
    """A freshly initialised network; InputError if its encoder does not take one of the sizes."""
    network = MALNetwork(config)
    if config.arch.startswith("mal-timm:"):
        for side in sorted(set(config.sizes or ())):
            _try_side(network, side)
    return network


def _try_side(network: MALNetwork, side: int) -> None:
    training = network.training
    try:
        with torch.no_grad():
            network.eval().encode(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"arch {network.config.arch}: does not take crops of {side} px too ({reason})") from None
    finally:
        network.train(training)
