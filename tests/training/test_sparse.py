"""2:4 sparsity: which weights go, what is made up for, and that training keeps the zeros."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from killed_run import ended_at
from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import read_checkpoint, save_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.loop import train
from mal_trt.training.moments import Moments, as_matrix, columns, from_matrix
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.sparse import (
    META,
    SCORES,
    is_two_four,
    sparse_candidates,
    sparse_weight,
    two_of_four,
    zeros_of,
)
from mal_trt.training.trainer import network_config

CONFIG = NetworkConfig("vit-deit-tiny/16", "hybrid", 64, mask_head_hidden_channel=16, depth=1, adjust_scale=False)


def test_the_two_largest_of_four_stay() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 8.0, 7.0, 5.0, 6.0]])
    assert two_of_four(scores).tolist() == [[False, True, True, False, True, True, False, False]]


def test_magnitude_is_pytorchs_own() -> None:
    """The same zeros as the public tool makes of the same weights, where there are no ties."""
    from torch.ao.pruning import WeightNormSparsifier

    layer = torch.nn.Linear(32, 24)
    expected = sparse_weight(layer.weight, "magnitude", None)
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    model = torch.nn.Sequential(layer)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert torch.equal(model[0].weight.detach(), expected)


@pytest.mark.parametrize("layer", [torch.nn.Linear(8, 6), torch.nn.Conv2d(8, 6, 3, 2, 1), torch.nn.Conv2d(8, 6, 1)])
def test_a_layer_is_its_matrix(layer: torch.nn.Module) -> None:
    x = torch.randn(2, 5, 8) if isinstance(layer, torch.nn.Linear) else torch.randn(2, 8, 6, 6)
    rows = columns(layer, x) @ as_matrix(layer.weight).T + layer.bias
    expected = layer(x)
    expected = expected.flatten(0, 1) if x.ndim == 3 else expected.permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(rows, expected)
    assert torch.equal(from_matrix(as_matrix(layer.weight), layer.weight), layer.weight)


@pytest.mark.parametrize("layer", [torch.nn.Linear(32, 24), torch.nn.Conv2d(16, 8, 3)])
def test_each_score_keeps_the_output_better(layer: torch.nn.Module) -> None:
    """On inputs some of which are large and all of which are mixed, as a network's are."""
    torch.manual_seed(0)
    wide = as_matrix(layer.weight).shape[1]
    x = torch.randn(4000, wide) @ torch.randn(wide, wide) * torch.logspace(-1, 1, wide)[torch.randperm(wide)]
    moments, errors = x.T @ x, []
    for score in SCORES:
        sparse = sparse_weight(layer.weight, score, moments)
        assert is_two_four(sparse) and sparse.shape == layer.weight.shape
        errors.append(float(((as_matrix(sparse) - as_matrix(layer.weight)) @ x.T).norm()))
    assert errors[0] > errors[1] > errors[2]


def test_what_can_be_sparse() -> None:
    network = build_network(CONFIG)
    found = sparse_candidates(network)
    assert found["backbone.blocks.0.attn.qkv"] == "linear" and found["mask_head.convs.0.conv"] == "conv"
    assert found["mask_head.reduce"] == "pointwise"
    assert "backbone.patch_embed.proj.0.0" not in found  # three colours
    assert not any(name.startswith("roi_head") for name in found)


def test_moments_of_a_network_are_those_of_its_inputs() -> None:
    network = build_network(CONFIG).eval()
    name, seen = "backbone.blocks.0.mlp.fc1", []
    network.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0].detach()))
    found = Moments(network, [name])
    image = torch.randn(3, 3, 64, 64)
    found.add([image[:1], image[1:]], [torch.ones(1), torch.ones(2)])
    x = torch.cat([part.flatten(0, 1) for part in seen])
    torch.testing.assert_close(found.of(name), x.T @ x, rtol=1e-4, atol=1e-3)
    assert found.sum[name][-1, -1] == len(x)


@pytest.fixture
def pruned(plan: TrainConfig, tmp_path: Path) -> tuple[TrainConfig, list[str]]:
    """A run that starts from a 2:4 sparse network."""
    network = build_network(network_config(plan))
    names = list(sparse_candidates(network))
    with torch.no_grad():
        for name in names:
            weight = network.get_submodule(name).weight
            weight.copy_(sparse_weight(weight, "magnitude", None))
    state = network.state_dict()
    path = tmp_path / "pruned.pth"
    save_checkpoint(path, network.config, student=state, teacher=state, meta={META: names})
    return replace(plan, start_from=path, recipe="small", lr=1e-3), names


def test_training_keeps_the_zeros(pruned: tuple[TrainConfig, list[str]]) -> None:
    plan, names = pruned
    before = read_checkpoint(plan.start_from).student
    found = read_checkpoint(train(plan))
    assert found.meta[META] == names
    for part in (found.student, found.teacher):
        for name in names:
            weight = part[f"{name}.weight"]
            assert is_two_four(weight)
            assert not weight[before[f"{name}.weight"] == 0].any()
    moved = [name for name in names if not torch.equal(found.student[f"{name}.weight"], before[f"{name}.weight"])]
    assert moved == names


def test_zeros_stay_when_a_run_goes_on(pruned: tuple[TrainConfig, list[str]]) -> None:
    plan, names = pruned
    whole = read_checkpoint(train(replace(plan, out=plan.out / "whole")))
    plan = replace(plan, out=plan.out / "killed", checkpoint_steps=1)
    with ended_at(4, KeyboardInterrupt):
        train(plan)
    found = read_checkpoint(train(replace(plan, resume=True)))
    assert all(is_two_four(found.student[f"{name}.weight"]) for name in names)
    assert all(torch.equal(value, whole.student[name]) for name, value in found.student.items())


def test_the_dense_network_teaches(plan: TrainConfig, tmp_path: Path) -> None:
    """Its masks alone are the target: what differs from it comes nearer, and what does not stays."""
    from mal_trt.training.trainer import Trainer

    dense = build_network(network_config(plan))
    save_checkpoint(tmp_path / "dense.pth", dense.config, student=dense.state_dict())
    run = replace(plan, start_from=tmp_path / "dense.pth", dense=tmp_path / "dense.pth", recipe="small", lr=1e-3)
    trainer = Trainer(run, 10)
    trainer.start(tmp_path / "dense.pth")
    rng = np.random.default_rng(0)
    batch = {
        "student": torch.from_numpy(rng.integers(0, 255, (4, 64, 64, 3), np.uint8)),
        "teacher": torch.zeros(4, 64, 64, 3, dtype=torch.uint8),
        "mask": torch.ones(4, 64, 64, dtype=torch.uint8),
        "area": torch.full((4,), 1e4),
        "row": torch.arange(4),
    }
    least = float(trainer.train_step(batch).total)
    with torch.no_grad():
        trainer.student.mask_head.bias += 1.0
    worse = float(trainer.train_step(batch).total)
    losses = [float(trainer.train_step(batch).total) for _ in range(8)]
    assert least < worse and losses[-1] < worse


def test_a_file_that_says_more_than_it_holds() -> None:
    network = build_network(CONFIG)
    with pytest.raises(InputError, match=r"x\.pth: says that mask_head\.reduce is 2:4 sparse, but it is not"):
        zeros_of(network, ["mask_head.reduce"], "x.pth")
    with pytest.raises(InputError, match="has no such layer"):
        zeros_of(network, ["mask_head.nothing"], "x.pth")
    with pytest.raises(InputError, match="reckons with real crops"):
        sparse_weight(network.get_submodule("mask_head.reduce").weight, "wanda", None)
