"""The inner widths of a network, and cutting them: MLP neurons, attention heads, channels, whole blocks.

Which of them to cut is `importance`. A network that was cut is described by `NetworkConfig.trimmed`: how much is left
of each width, by the width's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mal_trt.base.errors import InputError
from mal_trt.training.heads import HybridHead, VHead
from mal_trt.training.lite import LiteBlock

Makers = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Width:
    """A width that can be cut without anything else noticing.

    name: of a module. kind: "neurons", "heads", "channels", or "block" for a residual block that is there or not.
    count: how many there are now. each: values of one of them, those of a head. makers: names of the modules whose
    outputs they are, and in how many copies (queries, keys and values are three). through: depthwise convolutions in
    between. takers: modules that they go into.
    """

    name: str
    kind: str
    count: int
    each: int = 1
    makers: Makers = ()
    through: tuple[str, ...] = ()
    takers: tuple[str, ...] = ()


def widths(network: nn.Module) -> dict[str, Width]:
    """All widths of a MALNetwork by name, in the order of its modules."""
    return {width.name: width for name, module in network.named_modules() for width in _of(network, name, module)}


def _of(network: nn.Module, name: str, module: nn.Module) -> Iterator[Width]:
    if isinstance(module, Block):
        yield Width(name, "block", 1)
        attention: Any = module.attn
        # timm before 1.0.20 knows no attention narrower than its tokens.
        if hasattr(attention, "attn_dim") and attention.gate is None and isinstance(attention.norm, nn.Identity):
            qkv = ((f"{name}.attn.qkv", 3),)
            yield Width(
                f"{name}.attn", "heads", attention.num_heads, attention.head_dim, qkv, takers=(f"{name}.attn.proj",)
            )
        hidden = module.mlp.fc1.out_features
        yield Width(f"{name}.mlp", "neurons", hidden, 1, ((f"{name}.mlp.fc1", 1),), takers=(f"{name}.mlp.fc2",))
    elif isinstance(module, LiteBlock):
        if module.skip:
            yield Width(name, "block", 1)
        if len(module.convs) == 3:
            first, depthwise, last = (f"{name}.convs.{i}.conv" for i in range(3))
            yield Width(f"{name}.convs", "channels", _outputs(network, first), 1, ((first, 1),), (depthwise,), (last,))
    elif isinstance(module, HybridHead):
        convs = [f"{name}.convs.{i}.conv" for i in range(len(module.convs))]
        made: list[Makers] = [((f"{name}.reduce", 1), (f"{name}.skip8", 1)), ((convs[0], 1),), ((convs[1], 1),)]
        made += [((convs[2], 1), (f"{name}.skip4", 1)), ((convs[3], 1), ("roi_head.mlp2", 1))]
        yield from _chain(network, made, convs)
    elif isinstance(module, VHead):
        convs = [f"{name}.convs.{i}.conv" for i in range(len(module.convs))]
        single: list[Makers] = [((conv, 1),) for conv in convs[:-1]]
        yield from _chain(network, [*single, ((convs[-1], 1), ("roi_head.mlp2", 1))], convs[1:])


def _outputs(network: nn.Module, name: str) -> int:
    module: Any = network.get_submodule(name)
    return int(module.out_channels)


def _chain(network: nn.Module, made: list[Makers], takers: list[str]) -> Iterator[Width]:
    """Widths of a mask head, each named after the module that makes it; the last is met by the K vector."""
    for number, makers in enumerate(made):
        name = makers[0][0].removesuffix(".conv")
        count = _outputs(network, makers[0][0])
        yield Width(name, "channels", count, 1, makers, takers=tuple(takers[number : number + 1]))


def cut(network: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Cut widths in place. kept: by the name of a width, which of it stay, int64 [n], ascending; none only of a block,
    which becomes nothing at all."""
    known = widths(network)
    for name, indices in kept.items():
        width = known[name]
        if width.kind == "block":
            if not len(indices):
                network.set_submodule(name, nn.Identity())
            continue
        inside = (indices[:, None] * width.each + torch.arange(width.each)).flatten()
        module: Any
        for maker, copies in width.makers:
            module = network.get_submodule(maker)
            full = module.weight.shape[0] // copies
            rows = torch.cat([inside + copy * full for copy in range(copies)])
            _slice(module, rows, 0)
        for depthwise in width.through:
            module = network.get_submodule(depthwise)
            _slice(module, inside, 0)
            module.groups = module.in_channels = len(inside)
        for taker in width.takers:
            _slice(network.get_submodule(taker), inside, 1)
        if width.kind == "heads":
            attention: Any = network.get_submodule(name)
            attention.num_heads, attention.attn_dim = len(indices), len(inside)


def _slice(module: Any, indices: Tensor, axis: int) -> None:
    """Some of the outputs (axis 0) or inputs (axis 1) of a Linear or a convolution."""
    weight = module.weight
    module.weight = nn.Parameter(weight.detach().index_select(axis, indices).clone(), weight.requires_grad)
    if axis == 0 and module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[indices].clone(), module.bias.requires_grad)
    words = ("out_features", "out_channels") if axis == 0 else ("in_features", "in_channels")
    for word in words:
        if hasattr(module, word):
            setattr(module, word, len(indices))


def trim(network: nn.Module, left: Mapping[str, int]) -> None:
    """Give a new network of its arch's full widths the shape of one that was cut; InputError if it has no such width.

    left: how much is left of a width, by its name.
    """
    known = widths(network)
    for name, count in left.items():
        least = 0 if name in known and known[name].kind == "block" else 1
        if name not in known or not least <= count <= known[name].count:
            has = f"it has {known[name].count}" if name in known else "the network has no width of that name"
            raise InputError(f"trimmed: {count} of {name!r}, but {has}")
    cut(network, {name: torch.arange(count) for name, count in left.items()})


def trimmed(full: nn.Module, network: nn.Module) -> tuple[tuple[str, int], ...]:
    """`NetworkConfig.trimmed` of a network that was cut, beside one of its arch's full widths."""
    there = widths(network)
    found = []
    for name, width in widths(full).items():
        if name in there and there[name].count < width.count:
            found.append((name, there[name].count))
        elif width.kind == "block" and name not in there:
            found.append((name, 0))
    return tuple(found)
