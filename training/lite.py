"""EfficientNet-Lite as an encoder: batch norm folded into its convolutions, four maps out.

Tan and Le, arXiv 1905.11946, in the Lite form of the TensorFlow TPU repository: no squeeze-excite, ReLU6, "same"
padding. Built from timm's definition (`tf_efficientnet_lite0` ... `2`), whose weights it takes. "edge" and "nano" are
Lite0 without its last stages, which hold three quarters of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal_trt.base.errors import InputError
from mal_trt.training.depthwise import FrozenDepthwise

STEP = 32
OF_ENCODER = ("conv_stem", "bn1", "blocks")  # how timm names what an encoder has


@dataclass(frozen=True)
class Variant:
    """model: whose weights these are. blocks: how many of each stage there are, None is all. picked: stages whose last
    maps are at S/4, S/8, S/16 and perhaps S/32."""

    model: str
    blocks: tuple[int, ...] | None = None
    picked: tuple[int, ...] = (1, 2, 4, 6)


VARIANTS: Mapping[str, Variant] = {
    "lite0": Variant("lite0"),
    "lite1": Variant("lite1"),
    "lite2": Variant("lite2"),
    "edge": Variant("lite0", (1, 2, 2, 3, 3, 2), (1, 2, 4, 5)),
    "nano": Variant("lite0", (1, 2, 2, 3, 3), (1, 2, 4)),
}


class FoldedConv(nn.Module):
    """A convolution with bias and TensorFlow's "same" padding for even sides, then ReLU6 if `active`.

    Depthwise ones are never trained: as ImageNet left them they serve, and training them costs most of the time.
    """

    def __init__(self, conv: nn.Conv2d, active: bool) -> None:
        super().__init__()
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        self.active = active
        self.depthwise = conv.groups > 1
        # With a stride the right and the bottom get the odd pixel, which a convolution's own padding cannot do.
        spare = kernel - stride
        self.pad = (spare // 2, spare - spare // 2) * 2 if stride > 1 else None
        self.conv = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            kernel,
            stride,
            0 if self.pad else kernel // 2,
            groups=conv.groups,
        )
        if self.depthwise:
            self.conv.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad is not None:
            x = F.pad(x, self.pad)
        conv = self.conv
        if self.depthwise and x.requires_grad:
            assert conv.bias is not None
            weight, bias = conv.weight.to(x.dtype), conv.bias.to(x.dtype)
            x = FrozenDepthwise.apply(x, weight, bias, conv.stride[0], conv.padding[0])  # type: ignore[no-untyped-call]
        else:
            x = conv(x)
        return F.relu6(x, inplace=True) if self.active else x


class LiteBlock(nn.Module):
    """A depthwise-separable or inverted-residual block of folded convolutions."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.skip = bool(block.has_skip)
        self.convs = nn.ModuleList(FoldedConv(conv, active) for _, _, conv, active in _convolutions(block))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        return x + y if self.skip else y


def _convolutions(block: Any) -> list[tuple[str, str, nn.Conv2d, bool]]:
    """(name of the convolution, name of its batch norm, the convolution, whether ReLU6 follows) in their order."""
    names = [("conv_pw", "bn1", True), ("conv_dw", "bn2", True), ("conv_pwl", "bn3", False)]
    if not hasattr(block, "conv_pwl"):
        names = [("conv_dw", "bn1", True), ("conv_pw", "bn2", False)]
    return [(conv, norm, getattr(block, conv), active) for conv, norm, active in names]


class LiteEncoder(nn.Module):
    """[B,3,S,S] of RGB scaled to -1..1 -> maps at S/4, S/8, S/16 and, but for "nano", S/32. S is a multiple of 32.

    channels: of the maps. mean, std: of the scaling, on 0..1.
    """

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, variant: str) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(f"unknown encoder {variant!r}: expected {', '.join(VARIANTS)}")
        self.variant = VARIANTS[variant]
        model = self._timm()
        self.stem = FoldedConv(model.conv_stem, True)
        self.stages = nn.ModuleList(nn.ModuleList(LiteBlock(block) for block in stage) for stage in model.blocks)
        self.channels = tuple(int(model.blocks[index][-1].conv_pwl.out_channels) for index in self.variant.picked)
        self._fold(model)

    def _whole(self) -> Any:
        return timm.create_model(f"tf_efficientnet_{self.variant.model}", pretrained=False)

    def _timm(self) -> Any:
        """timm's model, as much of it as this variant has."""
        model = self._whole()
        if self.variant.blocks is not None:
            kept = zip(model.blocks, self.variant.blocks, strict=False)
            model.blocks = nn.Sequential(*(stage[:count] for stage, count in kept))
        return model

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
            if index in self.variant.picked:
                maps.append(x)
        return maps

    def load_timm(self, state: Mapping[str, Tensor], where: str) -> None:
        """Take the weights of timm's model of this variant, batch norm folded in; InputError if they are not its own.

        state: timm's names; what this variant does not have of the model may be there or not.
        """
        model = self._timm()
        # A deeper model of the same widths, as lite1 is beside lite0, has all tensors of the other and more.
        known = set(self._whole().state_dict())
        if strange := [name for name in state if name.startswith(OF_ENCODER) and name not in known]:
            raise InputError(f"{where}: not EfficientNet-{self.variant.model}, which has no {strange[0]}")
        own = {name: value for name, value in model.state_dict().items() if name.startswith(OF_ENCODER)}
        wanted = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
        missing = [name for name in wanted if name not in state]
        if missing:
            raise InputError(
                f"{where}: lacks {len(missing)} tensors of EfficientNet-{self.variant.model}, such as {missing[0]}"
            )
        for name, value in wanted.items():
            if state[name].shape != value.shape:
                raise InputError(
                    f"{where}: not EfficientNet-{self.variant.model}: {name} is {list(state[name].shape)}, "
                    f"expected {list(value.shape)}"
                )
        model.load_state_dict({name: state[name] for name in wanted}, strict=False)
        self._fold(model)

    def _fold(self, model: Any) -> None:
        pairs = [(self.stem, model.conv_stem, model.bn1)]
        for stage, blocks in zip(self.stages, model.blocks, strict=True):
            for ours, block in zip(stage, blocks, strict=True):  # type: ignore[call-overload]
                convolutions = _convolutions(block)
                for folded, (_, norm, conv, _) in zip(ours.convs, convolutions, strict=True):
                    pairs.append((folded, conv, getattr(block, norm)))
        with torch.no_grad():
            for folded, conv, norm in pairs:
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                folded.conv.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
                assert folded.conv.bias is not None  # made with one, for the shift that is folded in here
                folded.conv.bias.copy_(norm.bias - norm.running_mean * scale)

    def freeze(self, stages: tuple[int, ...]) -> None:
        """Stop training of stage 0 (the stem) and of stages i >= 1; negative entries mean nothing."""
        for stage in stages:
            if stage > len(self.stages):
                raise InputError(f"frozen_stages: {stage} but the encoder has only {len(self.stages)} stages")
            if stage >= 0:
                module = self.stem if stage == 0 else self.stages[stage - 1]
                module.requires_grad_(False)
