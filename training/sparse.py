"""2:4 sparsity: of every four weights beside each other along the inputs two are zero, and stay so in training.

Scores: magnitude; Wanda, |w| times the norm of its input (Sun et al., arXiv 2306.11695); SparseGPT, which also moves
the weights that are left to make up for those that go (Frantar and Alistarh, arXiv 2301.00774).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mal_trt.base.errors import InputError
from mal_trt.training.moments import MatrixLayer, as_matrix, from_matrix

GROUP, KEPT = 4, 2
DAMPING = 0.01  # of the mean second moment, as SparseGPT has it
SCORES = ("magnitude", "wanda", "sparsegpt")
KINDS = ("linear", "pointwise", "conv")
META = "sparse_layers"  # names, in a checkpoint's meta and a model's contract


def sparse_candidates(network: nn.Module) -> dict[str, str]:
    """Layers that can be 2:4 sparse, by name, and their kind: "linear", "pointwise" (1x1) or "conv" (larger kernels).

    The K head, which runs once a crop, is left as it is. Others have a number of inputs that is no multiple of four.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("backbone.") and module.in_features % GROUP == 0:
            found[name] = "linear"
        elif isinstance(module, nn.Conv2d) and module.groups == 1 and module.in_channels % GROUP == 0:
            found[name] = "pointwise" if module.kernel_size == (1, 1) else "conv"
    found.pop("backbone.head", None)  # of published checkpoints, never used
    return found


def two_of_four(scores: Tensor) -> Tensor:
    """scores [O,c] -> bool [O,c]: the two highest of every four along the inputs."""
    groups = scores.view(len(scores), -1, GROUP)
    best = groups.topk(KEPT, dim=2).indices
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(2, best, True).view_as(scores)


def sparse_weight(weight: Tensor, score: str, moments: Tensor | None) -> Tensor:
    """A layer's weight with half of it zero. moments: second moments of its inputs [c,c], for all but magnitude."""
    matrix = as_matrix(weight.detach()).float()
    if score == "magnitude":
        return from_matrix(matrix * two_of_four(matrix.abs()), weight)
    if moments is None:
        raise InputError(f"--score {score}: reckons with real crops; give --boxes")
    if score == "wanda":
        return from_matrix(matrix * two_of_four(matrix.abs() * moments.diagonal().clamp_min(0).sqrt()), weight)
    return from_matrix(_sparsegpt(matrix, moments), weight)


def _sparsegpt(matrix: Tensor, moments: Tensor) -> Tensor:
    """Four columns at a time: which go, and what their going is made up for by in all columns after them."""
    w, h = matrix.double(), moments.double()
    diagonal = h.diagonal()
    dead = diagonal <= 0
    h = h + torch.diag(dead.double() + DAMPING * diagonal.mean())
    w = w * ~dead
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    keep = torch.zeros_like(w, dtype=torch.bool)
    for column in range(w.shape[1]):
        here = slice(column, column + GROUP)
        if column % GROUP == 0:
            keep[:, here] = two_of_four(w[:, here] ** 2 / inverse.diagonal()[here] ** 2)
        left = w[:, column] * keep[:, column]
        lost = (w[:, column] - left) / inverse[column, column]
        w[:, column:] -= lost[:, None] * inverse[column, column:]
        w[:, column] = left
    return (w * keep).float()


def is_two_four(weight: Tensor) -> bool:
    """Whether at most two of every four weights along the inputs are not zero."""
    matrix = as_matrix(weight)
    if matrix.shape[1] % GROUP:
        return False
    return bool(((matrix.view(len(matrix), -1, GROUP) != 0).sum(2) <= KEPT).all())


@dataclass(frozen=True)
class Zeros:
    """The zeros of a network that training must keep. left: by layer, where its weight is not zero, bool."""

    left: Mapping[str, Tensor]

    def keep(self, network: nn.Module) -> None:
        """Set them in a network's weights, in place."""
        with torch.no_grad():
            for name, mask in self.left.items():
                _layer(network, name).weight.mul_(mask)


def zeros_of(network: nn.Module, names: Iterable[str], where: str) -> Zeros:
    """The zeros in the layers that a file names; InputError if they are not 2:4 there."""
    left = {}
    for name in names:
        try:
            weight = _layer(network, name).weight.detach()
        except AttributeError:
            raise InputError(f"{where}: says that {name} is sparse, but the network has no such layer") from None
        if not is_two_four(weight):
            raise InputError(f"{where}: says that {name} is 2:4 sparse, but it is not; prune it again")
        left[name] = weight != 0
    return Zeros(left)


def _layer(network: nn.Module, name: str) -> MatrixLayer:
    module = network.get_submodule(name)
    assert isinstance(module, (nn.Linear, nn.Conv2d))
    return module
