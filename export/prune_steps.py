"""What pruning does to a network, measured on real crops: narrower layers first, then 2:4 zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mal_trt.calibration.sample import CropBatch
from mal_trt.export.prune_settings import PruneSettings
from mal_trt.export.prune_start import chosen
from mal_trt.training.augment import normalise
from mal_trt.training.importance import choose, importance, make_up, work
from mal_trt.training.moments import Moments
from mal_trt.training.network import MALNetwork
from mal_trt.training.sparse import sparse_weight
from mal_trt.training.widths import cut, widths


def seen(batches: Sequence[CropBatch]) -> tuple[list[Tensor], list[Tensor]]:
    """Crops as a network takes them, ImageNet-normalised float32 [B,3,S,S], and the areas of their boxes [B]."""
    images = [normalise(torch.from_numpy(np.ascontiguousarray(b.image.transpose(0, 2, 3, 1)))) for b in batches]
    corners = [np.array([spot.box for spot in batch.spots]) for batch in batches]
    areas = [torch.from_numpy((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1])) for c in corners]
    return images, areas


def narrower(network: MALNetwork, batches: Sequence[CropBatch], settings: PruneSettings) -> dict[str, Any]:
    """Cut a network's widths, in place, until the share of its multiplications that `settings.macs` says is left. What
    is left of each width that was cut, {name: {left, of}}."""
    assert settings.macs is not None
    images, areas = seen(batches)
    known = widths(network)
    kept = choose(work(network), importance(network, images, areas), settings.macs, settings.skip)
    takers = [taker for name in kept for taker in known[name].takers]
    moments = Moments(network, takers)
    moments.add(images, areas)
    make_up(network, moments, kept)
    cut(network, kept)
    return {name: {"left": len(indices), "of": known[name].count} for name, indices in kept.items()}


def sparse_weights(network: MALNetwork, batches: Sequence[CropBatch], settings: PruneSettings) -> dict[str, Tensor]:
    """The 2:4 sparse weight of each layer that is to be so; the network stays as it is."""
    names = chosen(network, settings)
    moments = Moments(network, names)
    if settings.score != "magnitude":
        moments.add(*seen(batches))
    weights = {name: network.get_submodule(name).weight for name in names}
    return {
        name: sparse_weight(weight, settings.score, moments.of(name) if name in moments.sum else None)  # type: ignore[arg-type]
        for name, weight in weights.items()
    }
