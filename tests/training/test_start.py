"""What a run takes over from the checkpoint it begins with: whoever names a checkpoint means its layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.config import RECIPES, TrainConfig, recipe_config
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.start import completed, shaped
from mal_trt.training.trainer import network_config, run_identity


def network(layout: str) -> NetworkConfig:
    return NetworkConfig("vit-deit-tiny/16", layout, 64, mask_head_hidden_channel=16, mask_head_out_channel=16, depth=1)


@pytest.fixture(params=["patch", "conv_stem"])
def tao_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A checkpoint as TAO and NVlabs write them, which does not say what it is."""
    layout: str = request.param
    state = build_network(network(layout)).state_dict()
    path = tmp_path / "vit-deit-tiny-16epoch=10.pth"
    torch.save({"epoch": 10, "state_dict": {f"student.{name}": tensor for name, tensor in state.items()}}, path)
    return layout, path


def built(given: dict[str, Any], tmp_path: Path) -> NetworkConfig:
    return network_config(recipe_config(**{"recipe": "tao", "images": (), "boxes": (), "out": tmp_path, **given}))


@pytest.mark.parametrize("arch", [{}, {"arch": "vit-deit-tiny/16"}, {"arch": "vit-mae-tiny/16"}])
def test_its_layout_with_and_without_an_arch(tao_file: tuple[str, Path], tmp_path: Path, arch: dict[str, Any]) -> None:
    layout, path = tao_file
    given, said = completed({"start_from": path, "crop_size": 64, **arch})
    assert said == f"{path}: {layout} layout, taken from the checkpoint"
    config = built(given, tmp_path)
    assert (config.layout, config.depth, config.crop_size) == (layout, 1, 64)
    assert (config.mask_head_hidden_channel, config.mask_head_out_channel) == (16, 16)
    if arch:
        assert config.arch == arch["arch"]


def test_what_is_said_counts_for_more(tao_file: tuple[str, Path], tmp_path: Path) -> None:
    given, said = completed({"start_from": tao_file[1], "arch": "vit-deit-tiny/16", "layout": "hybrid", "depth": 2})
    assert (given["layout"], given["depth"], said) == ("hybrid", 2, None)


def test_a_network_of_another_size_is_left_to_its_loader(tao_file: tuple[str, Path]) -> None:
    asked = {"start_from": tao_file[1], "arch": "vit-mae-small/16"}
    assert completed(asked) == (asked, None)


@pytest.mark.parametrize(
    "asked", [{"arch": "vit-mae-base/16"}, {"arch": "mal-lite0", "start_from": Path("efficientnet-lite0")}]
)
def test_no_layout_to_take(asked: dict[str, Any]) -> None:
    assert completed(asked) == (asked, None)


def test_a_run_that_goes_on_needs_its_start_no_more(tao_file: tuple[str, Path], tmp_path: Path) -> None:
    layout, path = tao_file
    out = tmp_path / "run"
    out.mkdir()
    asked = {"start_from": path, "arch": "vit-deit-tiny/16", "crop_size": 64, "out": out}
    first, _ = completed(asked)
    run = run_identity(recipe_config(**{"recipe": "tao", "images": (), "boxes": (), **first}))
    config = built(first, out)
    save_checkpoint(out / "last.pth", config, student=build_network(config).state_dict(), meta={"run": run})
    path.unlink()
    for more in ({"resume": True}, {"resume_from": out / "last.pth"}):
        again, said = completed({**asked, **more})
        assert said is None and built(again, out) == config
        then = run_identity(recipe_config(**{"recipe": "tao", "images": (), "boxes": (), **again}))
        assert {name for name in run if run[name] != then[name]} <= {"resume_from"}, "the same run"
    assert config.layout == layout


@pytest.mark.parametrize(
    ("asked", "patience"),
    [
        ({"start_from": Path("bundled")}, 3),
        ({"start_from": Path("bundled"), "patience": 1}, 1),
        ({"start_from": Path("bundled"), "patience": 0}, None),
        ({"start_from": Path("bundled"), "arch": "mal-lite0"}, None),
        ({"start_from": Path("efficientnet-lite0")}, None),
    ],
)
def test_a_whole_network_is_only_tuned(asked: dict[str, Any], patience: int | None, tmp_path: Path) -> None:
    given, _ = completed(asked)
    config = recipe_config(**{"recipe": "small", "images": (), "boxes": (), "out": tmp_path, **given})
    small = RECIPES["small"]
    assert config.patience == patience
    tuned = given.get("trained", False)
    assert (config.lr < small["lr"]) is tuned, "shorter steps over what was learnt already"
    assert config.arch == "mal-lite0" and config.crop_size == small["crop_size"]


def test_recipe_tao_tunes_as_published(tmp_path: Path) -> None:
    given, _ = completed({"start_from": Path("bundled")})
    config = recipe_config(**{"recipe": "tao", "images": (), "boxes": (), "out": tmp_path, **given})
    assert (config.patience, config.lr) == (None, 1e-6)


def test_from_python_too(tao_file: tuple[str, Path], tmp_path: Path) -> None:
    """`train` takes a TrainConfig, which cannot tell a default from what somebody said, but a layout of None."""
    layout, path = tao_file
    asked = TrainConfig((), (), tmp_path / "run", arch="vit-mae-tiny/16", start_from=path, crop_size=64, head_width=16)
    config, said = shaped(asked)
    assert (network_config(config).layout, config.depth) == (layout, 1)
    assert said == (None if layout == "patch" else f"{path}: conv_stem layout, taken from the checkpoint")
    assert shaped(config) == (config, None)
    assert shaped(replace(asked, layout="hybrid", depth=2)) == (replace(asked, layout="hybrid", depth=2), None)
    assert shaped(replace(asked, arch="vit-mae-small/16"))[0].layout is None, "its loader says what is wrong"
