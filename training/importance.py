"""Which inner widths a network can spare: what the masks lose by each, beside the multiplications that it saves.

The loss is the Fisher information of the mask's pixels: the expected squared gradient, with respect to a factor on a
neuron, head, channel or block, of the log-likelihood of a mask drawn from the network's own probabilities. To second
order this is how far the probabilities move when the factor goes to 0 (Theis et al., arXiv 1801.05787; Molchanov et
al., arXiv 1906.10771).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mal_trt.base.errors import InputError
from mal_trt.training.moments import Moments, as_matrix, from_matrix
from mal_trt.training.network import MALNetwork
from mal_trt.training.widths import Width, widths

STEP = 8  # channels and neurons go by eights, which tensor cores want
DAMPING = 0.01


def importance(network: MALNetwork, images: Iterable[Tensor], areas: Iterable[Tensor], seed: int = 0) -> dict[str, Any]:
    """By width: Fisher information of each of its values, float64 [count], the mean over crops.

    images: ImageNet-normalised [B,3,S,S]; areas: original square pixels [B].
    """
    known = widths(network)
    found = {name: torch.zeros(width.count, dtype=torch.float64) for name, width in known.items()}
    gates: dict[str, Tensor] = {}
    handles = [_gate(network, width, gates) for width in known.values()]
    generator, crops = torch.Generator().manual_seed(seed), 0
    was = [parameter.requires_grad for parameter in network.parameters()]
    network.requires_grad_(False)
    try:
        for image, area in zip(images, areas, strict=True):
            logits = network(image, area).float()
            drawn = torch.bernoulli(logits.detach().sigmoid(), generator=generator)
            loss = F.binary_cross_entropy_with_logits(logits, drawn, reduction="sum")
            gradients = torch.autograd.grad(loss, list(gates.values()))
            for name, gradient in zip(gates, gradients, strict=True):
                each = gradient.double().view(len(gradient), -1, known[name].each).sum(2)
                found[name] += (each**2).sum(0)
            crops += len(image)
            gates.clear()
    finally:
        for handle in handles:
            handle.remove()
        for parameter, value in zip(network.parameters(), was, strict=True):
            parameter.requires_grad_(value)
    return {name: value / max(crops, 1) for name, value in found.items()}


def _gate(network: nn.Module, width: Width, gates: dict[str, Tensor]) -> Any:
    """A factor of 1 on each value of a width and each crop, whose gradient is asked for."""

    def gated(x: Tensor, channels: int, last: bool) -> Tensor:
        factor = torch.ones(len(x), channels, requires_grad=True)
        gates[width.name] = factor
        shape = [len(x), *[1] * (x.ndim - 2)]
        return x * factor.view(*shape, channels) if last else x * factor.view(len(x), channels, *[1] * (x.ndim - 2))

    if width.kind == "block":

        def whole(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return inputs[0] + gated((output - inputs[0])[:, None], 1, False)[:, 0]

        return network.get_submodule(width.name).register_forward_hook(whole)
    channels = width.count * width.each
    if width.takers:
        taker = network.get_submodule(width.takers[0])
        last = isinstance(taker, nn.Linear)
        return taker.register_forward_pre_hook(lambda _, inputs: gated(inputs[0], channels, last))
    return network.get_submodule(width.name).register_forward_hook(lambda _, __, output: gated(output, channels, False))


@dataclass
class Work:
    """Multiplications by weights of one crop, as widths are cut. layers: of each layer its multiplications when whole,
    and the widths that they are proportional to; left: how much of each width stays."""

    layers: dict[str, tuple[int, tuple[str, ...]]]
    known: Mapping[str, Width]
    left: dict[str, int] = field(default_factory=dict)

    def total(self, names: Iterable[str] | None = None) -> float:
        """Of these layers, or of all."""
        return sum(self._of(name) for name in (self.layers if names is None else names))

    def _of(self, name: str) -> float:
        whole, by = self.layers[name]
        return whole * prod(self.left.get(n, self.known[n].count) / self.known[n].count for n in by)

    def touched(self, width: str) -> list[str]:
        """Layers whose work depends on a width."""
        return [name for name, (_, by) in self.layers.items() if width in by]


def work(network: MALNetwork) -> Work:
    """The multiplications of a network, counted on one blank crop of its size; the mask head of the large grid."""
    known = widths(network)
    counted: dict[str, int] = {}

    def count(name: str) -> Any:
        def see(module: Any, _: Any, output: Tensor) -> None:
            places = output.numel() // module.weight.shape[0]
            counted[name] = counted.get(name, 0) + module.weight.numel() * places

        return see

    layers = {n: m for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    handles = [module.register_forward_hook(count(name)) for name, module in layers.items()]
    side = network.config.crop_size
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side), torch.tensor([1e6]))
    finally:
        for handle in handles:
            handle.remove()
    by: dict[str, list[str]] = {name: [] for name in counted}
    for width in known.values():
        if width.kind == "block":
            members = [name for name in counted if name.startswith(f"{width.name}.")]
        else:
            members = [*(name for name, _ in width.makers), *width.through, *width.takers]
        for name in members:
            if name in by:
                by[name].append(width.name)
    return Work({name: (whole, tuple(by[name])) for name, whole in counted.items()}, known)


def choose(work: Work, scores: Mapping[str, Tensor], share: float, skip: Iterable[str] = ()) -> dict[str, Tensor]:
    """What stays of each width that is cut, so that `share` of the multiplications is left: as `cut` takes it.

    Step by step goes what costs least for the multiplications that it saves. InputError if so little cannot be reached.
    """
    goal, skip = share * work.total(), tuple(skip)
    layers = {name: work.touched(name) for name in work.known}
    order = {name: scores[name].argsort() for name in work.known}
    left = {name: width.count for name, width in work.known.items() if not any(part in name for part in skip)}
    inside = {name: [n for n in left if n.startswith(f"{name}.")] for name in left if work.known[name].kind == "block"}

    def rating(name: str) -> float:
        """Loss by multiplication saved, of the width's next step."""
        width, now = work.known[name], left[name]
        step = 1 if width.kind in ("heads", "block") else STEP
        if now - step < (0 if width.kind == "block" else step):
            return float("inf")
        before = work.total(layers[name])
        work.left[name] = now - step
        saved = before - work.total(layers[name])
        work.left[name] = now
        gone = width.count - now
        return float(scores[name][order[name][gone : gone + step]].sum()) / max(saved, 1e-9)

    ratings = {name: rating(name) for name in left}
    while work.total() > goal:
        name = min(ratings, key=ratings.__getitem__, default="")
        if not name or ratings[name] == float("inf"):
            least = work.total() / sum(whole for whole, _ in work.layers.values())
            raise InputError(f"--macs {share:g}: this network can be cut to {least:.2f} of its multiplications at most")
        left[name] -= 1 if work.known[name].kind in ("heads", "block") else STEP
        work.left[name] = left[name]
        if work.known[name].kind == "block":
            for other in (name, *inside[name]):
                ratings.pop(other, None)
            for other in inside[name]:
                left.pop(other, None)
        for other in {n for layer in layers[name] for n in work.layers[layer][1]}:
            if other in ratings:
                ratings[other] = rating(other)
    return {
        name: order[name][work.known[name].count - count :].sort().values
        for name, count in left.items()
        if count < work.known[name].count
    }


def make_up(network: MALNetwork, moments: Moments, kept: Mapping[str, Tensor]) -> None:
    """Least squares: the layers that lose inputs give, from those that are left, what they gave before, as near as can
    be on the crops that were seen. Call it before `cut`; it moves weights and biases of the inputs that stay."""
    known = widths(network)
    for name, indices in kept.items():
        width = known[name]
        for taker in width.takers if width.kind != "block" else ():
            layer: Any = network.get_submodule(taker)
            matrix = as_matrix(layer.weight.detach()).double()
            second = moments.sum[taker].double()
            channels = layer.weight.shape[1]
            inside = (indices[:, None] * width.each + torch.arange(width.each)).flatten()
            places = torch.arange(matrix.shape[1] // channels)[:, None] * channels
            stays = torch.cat([(places + inside).flatten(), torch.tensor([len(second) - 1])])
            bias = layer.bias.detach().double() if layer.bias is not None else matrix.new_zeros(len(matrix))
            whole = torch.cat([matrix, bias[:, None]], 1)
            if layer.bias is None:
                stays = stays[:-1]
            small = second[stays][:, stays]
            ridge = torch.full((len(stays),), DAMPING * float(small.diagonal()[:-1].mean()), dtype=torch.float64)
            ridge[-1] = 0 if layer.bias is not None else ridge[-1]
            start = whole[:, stays]  # what is not seen stays as it was
            aim = whole @ second[:, stays] - start @ small
            moved = start + torch.linalg.solve(small + torch.diag(ridge), aim.T).T
            new = torch.zeros_like(whole)
            new[:, stays] = moved
            with torch.no_grad():
                layer.weight.copy_(from_matrix(new[:, :-1].float(), layer.weight))
                if layer.bias is not None:
                    layer.bias.copy_(new[:, -1].float())
