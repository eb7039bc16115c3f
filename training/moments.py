"""What goes into a network's layers on real crops: the second moments of their inputs, from which pruning reckons.

A layer's weight is seen as a matrix [outputs, inputs] whose columns are what one output sees: of a convolution its
kernel's places one after the other, in each of them all input channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MatrixLayer = nn.Linear | nn.Conv2d


def as_matrix(weight: Tensor) -> Tensor:
    """[O,I] or [O,I,k,k] -> [O,k*k*I], input channels side by side."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`, for a weight of the shape of `like`."""
    if like.ndim == 2:
        return matrix
    out, channels, height, width = like.shape
    return matrix.view(out, height, width, channels).permute(0, 3, 1, 2).contiguous()


def columns(layer: MatrixLayer, x: Tensor) -> Tensor:
    """A layer's input as rows [n, columns of its matrix]."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2)
    if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
        return x.permute(0, 2, 3, 1).flatten(0, 2)
    places = layer.kernel_size[0] * layer.kernel_size[1]
    seen = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return seen.view(len(x), x.shape[1], places, -1).permute(0, 3, 2, 1).flatten(0, 1).flatten(1)


class Moments:
    """sum: by layer, the sum over all crops and places of x x^T, float32 [c+1,c+1], the last row of x being 1, so that
    biases are reckoned with; [c,c] is the number of places."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        self.network = network
        self.layers = {name: network.get_submodule(name) for name in names}
        self.sum: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, images: Iterable[Tensor], areas: Iterable[Tensor]) -> None:
        """Run batches, ImageNet-normalised [B,3,S,S] with areas [B], and add up what the layers see."""
        handles = [layer.register_forward_pre_hook(self._hook(name)) for name, layer in self.layers.items()]
        try:
            for image, area in zip(images, areas, strict=True):
                self.network(image, area)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def see(layer: MatrixLayer, inputs: tuple[Tensor, ...]) -> None:
            x = columns(layer, inputs[0]).float()
            x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            own = self.sum.get(name)
            self.sum[name] = x.T @ x if own is None else own.addmm_(x.T, x)

        return see

    def of(self, name: str) -> Tensor:
        """Second moments of a layer's inputs without the constant, [c,c]."""
        return self.sum[name][:-1, :-1]
