"""The mean of several runs' weights."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import read_checkpoint, save_checkpoint
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.soup import average


def saved(path: Path, seed: int, **changes: int) -> Path:
    torch.manual_seed(seed)
    sizes = {"crop_size": 64, "mask_head_hidden_channel": 16, "depth": 1, **changes}
    config = NetworkConfig(arch="vit-mal-tiny/16", layout="hybrid", **sizes)
    weights = build_network(config).state_dict()
    save_checkpoint(path, config, student=weights, teacher={name: value + 1 for name, value in weights.items()})
    return path


def test_every_weight_is_the_mean_of_the_teachers(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{seed}.pth", seed) for seed in range(3)]
    teachers = [read_checkpoint(path).teacher for path in paths]
    found = read_checkpoint(average(paths, tmp_path / "mean.pth"))
    assert found.config == read_checkpoint(paths[0]).config and found.teacher and found.student
    for name, value in found.teacher.items():
        expected = torch.stack([teacher[name].double() for teacher in teachers if teacher]).mean(0)
        assert torch.allclose(value.double(), expected, atol=1e-6) and (found.student[name] == value).all()


def test_networks_that_have_no_mean(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "one.pth", 0), saved(tmp_path / "two.pth", 0, mask_head_hidden_channel=24)]
    with pytest.raises(InputError, match=r"two\.pth: holds another network than .*one\.pth"):
        average(paths, tmp_path / "mean.pth")
    assert not (tmp_path / "mean.pth").exists()
