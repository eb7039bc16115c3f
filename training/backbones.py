"""Any timm model as MAL's encoder: its stride-16 and stride-32 maps, brought to stride 16."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from mal_trt.base.errors import InputError
from mal_trt.training.heads import resize
from mal_trt.training.vit import STRIDE


class TimmBackbone(nn.Module):
    """image [B,3,S,S] -> (feature [B,C,S/16,S/16],), C = sum over the last map of each stride >= 16.

    Models that timm cannot turn into a pyramid give their one last map. Weights: `net.<timm's names>`.
    """

    def __init__(self, arch: str, crop_size: int, drop_path: float = 0.0) -> None:
        super().__init__()
        net, self.pyramid = _create(arch, crop_size, drop_path)
        self.net: nn.Module = net
        self.prefix_tokens = int(getattr(net, "num_prefix_tokens", 0))
        if self.pyramid:
            strides, widths = list(net.feature_info.reduction()), list(net.feature_info.channels())
            last = {stride: index for index, stride in enumerate(strides) if stride >= STRIDE}
            if not last:
                raise InputError(f"arch {arch!r}: its coarsest map has stride {max(strides)}, need 16 or more")
            self.picked = sorted(last.values())
            self.widths = [int(widths[index]) for index in self.picked]
        else:
            self.picked, self.widths = [0], [int(net.num_features)]
        self.channels: tuple[int, ...] = (sum(self.widths),)
        try:
            with torch.no_grad():
                self.eval()(torch.zeros(1, 3, crop_size, crop_size))
            self.train()
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"arch {arch!r} does not take {crop_size} px crops ({reason})") from None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        side = image.shape[-1] // STRIDE
        if self.pyramid:
            outputs: list[Tensor] = self.net(image)
            maps = [outputs[index] for index in self.picked]
        else:
            maps = [self.net.forward_features(image)]  # type: ignore[operator]
        maps = [self._channels_first(m, c) for m, c in zip(maps, self.widths, strict=True)]
        return (torch.cat([resize(m, (side, side)) for m in maps], dim=1),)

    def _channels_first(self, x: Tensor, channels: int) -> Tensor:
        """[B,h,w,C] or tokens [B,N,C] -> [B,C,h,w]; [B,C,h,w] is left alone."""
        if x.ndim == 3:
            x = x[:, self.prefix_tokens :]
            side = round(x.shape[1] ** 0.5)
            return x.reshape(x.shape[0], side, side, channels).permute(0, 3, 1, 2)
        return x if x.shape[1] == channels else x.permute(0, 3, 1, 2)

    def freeze(self, stages: tuple[int, ...]) -> None:
        """timm models are trained whole: only (-1,), nothing frozen, is accepted."""
        if any(stage >= 0 for stage in stages):
            raise InputError("frozen_stages is for vit-* architectures; a timm backbone is trained whole")


def _create(arch: str, crop_size: int, drop_path: float) -> tuple[Any, bool]:
    """(timm model, whether it returns a pyramid of maps)."""
    if not timm.is_model(arch):
        raise InputError(f"unknown arch {arch!r}: neither vit-<family>-<size>/<patch> nor a timm model name")
    common: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    # Window and position-table models must be told the crop size; convolutional ones do not know the option.
    attempts: list[dict[str, Any]] = [
        {"features_only": True, "img_size": crop_size},
        {"features_only": True},
        {"img_size": crop_size, "num_classes": 0},
        {"num_classes": 0},
    ]
    reason = ""
    for options in attempts:
        try:
            return timm.create_model(arch, pretrained=False, **common, **options), "features_only" in options
        except (TypeError, AttributeError, RuntimeError, AssertionError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
    raise InputError(f"timm cannot build {arch!r} as an encoder ({reason})")
