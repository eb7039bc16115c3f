"""Checkpoints of every known origin are recognised by content, and none of them runs code."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from mal_trt.base.errors import InputError, RunError
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network
from mal_trt.training.vit import resample_positions

GOLDEN = Path(__file__).parent.parent / "golden"
SEEDED = runpy.run_path(str(GOLDEN / "seeded.py"))
weight = SEEDED["weight"]
LAYOUTS = {"v2": "patch", "convstem": "conv_stem"}


def published_state(name: str) -> OrderedDict[str, Tensor]:
    """A whole published checkpoint's state_dict: all student names, then all teacher names."""
    keys = json.loads((GOLDEN / f"keys_{name}.json").read_text())["keys"]
    state: OrderedDict[str, Tensor] = OrderedDict()
    for part in ("student", "teacher"):
        for key, shape in keys.items():
            full = key.replace("student.", f"{part}.", 1)
            state[full] = torch.from_numpy(weight(full, shape))
    return state


class Config:
    """Stands for omegaconf.ListConfig and the like while a file is being written."""

    def __init__(self) -> None:
        self.parents = [1, 2]


def foreign_class(module: str, name: str) -> type:
    """A class that pickles under a module which does not exist when the file is read back."""
    made = type(name, (Config,), {"__module__": module})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, made)
    return made


@contextmanager
def without_omegaconf() -> Iterator[None]:
    """As where it is not installed, or not imported yet."""
    with patch.dict(sys.modules):
        for name in [n for n in sys.modules if n.split(".")[0] == "omegaconf"]:
            del sys.modules[name]
        yield


def save_with_foreign_objects(content: dict[str, Any], path: Path) -> None:
    with without_omegaconf():
        list_config = foreign_class("omegaconf.listconfig", "ListConfig")
        experiment = foreign_class("nvidia_tao_core.config.mal.default_config", "ExperimentConfig")
        content["optimizer_states"] = [{"param_groups": [{"betas": list_config()}]}]
        content["hyper"] = experiment()
        torch.save(content, path)


@pytest.fixture(scope="module", params=["v2", "convstem"])
def tao_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("tao") / "whatever.bin"  # recognised by content, not by name
    content = {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": published_state(f"tiny_{request.param}"),
        "tao_model": "mal",
    }
    save_with_foreign_objects(content, path)
    return request.param, path


def test_tao_checkpoint_with_unknown_classes(tao_file: tuple[str, Path]) -> None:
    flavour, path = tao_file
    with pytest.raises(Exception, match=r"omegaconf|Weights only"):
        torch.load(path, weights_only=True)
    with without_omegaconf():
        checkpoint = read_checkpoint(path)
        assert "omegaconf" not in sys.modules and "nvidia_tao_core" not in sys.modules
    assert checkpoint.kind == "mal" and checkpoint.backbone is None
    assert checkpoint.config == NetworkConfig("vit-deit-tiny/16", LAYOUTS[flavour])
    assert checkpoint.meta["epoch"] == 1 and "hyper" not in checkpoint.meta
    network = build_network(checkpoint.config)
    for part in ("student", "teacher"):
        loaded = load_into(network, checkpoint, part)
        assert loaded.fresh == () and loaded.unused == ()
        for key, value in network.state_dict().items():
            expected = weight(f"{part}.{key}", tuple(value.shape))
            np.testing.assert_array_equal(value.numpy(), expected)


def test_layouts_do_not_mix(tao_file: tuple[str, Path]) -> None:
    flavour, path = tao_file
    other = "conv_stem" if flavour == "v2" else "patch"
    network = build_network(NetworkConfig("vit-deit-tiny/16", other))
    with pytest.raises(InputError, match=f"the network of the {other} layout"):
        load_into(network, read_checkpoint(path))


def test_student_only_serves_both_and_half_precision_loads(tmp_path: Path) -> None:
    state = {k: v.half() for k, v in published_state("tiny_v2").items() if k.startswith("student.")}
    torch.save({"state_dict": state}, tmp_path / "student.pth")
    checkpoint = read_checkpoint(tmp_path / "student.pth")
    assert checkpoint.teacher is None and checkpoint.config is not None
    network = build_network(checkpoint.config)
    assert load_into(network, checkpoint, "teacher").fresh == ()
    assert next(network.parameters()).dtype == torch.float32


def vit_tiny(**options: Any) -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", **options)


def assert_encoder_equals(network: MALNetwork, state: dict[str, Tensor], names: tuple[str, ...]) -> None:
    own = network.state_dict()
    for name in names:
        torch.testing.assert_close(own[f"backbone.{name}"], state[name], rtol=0, atol=0)


ENCODER = ("cls_token", "pos_embed", "blocks.11.mlp.fc2.bias", "norm.weight")


def test_mae_deit_and_timm_files(tmp_path: Path) -> None:
    encoder = vit_tiny(num_classes=0).state_dict()
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    files = {
        "mae.pth": {"model": encoder},
        "mae_full.pth": {"model": {**encoder, **decoder}},
        "deit.pth": {"model": vit_tiny().state_dict()},
        "timm.pth": vit_tiny().state_dict(),
        "ddp.pth": {"state_dict": {f"module.{k}": v for k, v in encoder.items()}},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        checkpoint = read_checkpoint(tmp_path / name)
        assert checkpoint.kind == "vit" and checkpoint.student is None
        assert checkpoint.config == NetworkConfig("vit-deit-tiny/16")
        assert checkpoint.backbone is not None
        network = build_network(NetworkConfig("vit-deit-tiny/16"))
        loaded = load_into(network, checkpoint)
        assert_encoder_equals(network, checkpoint.backbone, (*ENCODER, "patch_embed.proj.weight"))
        assert all(key.startswith(("roi_head.", "mask_head.", "backbone.head.")) for key in loaded.fresh)
        if name == "mae_full.pth":
            assert loaded.unused == ("backbone.mask_token", "backbone.decoder_blocks.0.norm1.weight")


def test_distilled_deit_drops_its_second_token(tmp_path: Path) -> None:
    state = timm.create_model("deit_tiny_distilled_patch16_224").state_dict()
    torch.save({"model": state}, tmp_path / "distilled.pth")
    network = build_network(NetworkConfig("vit-deit-tiny/16"))
    load_into(network, read_checkpoint(tmp_path / "distilled.pth"))
    table = network.state_dict()["backbone.pos_embed"]
    torch.testing.assert_close(table[:, 1:], state["pos_embed"][:, 2:], rtol=0, atol=0)


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = vit_tiny().state_dict()
    save_file(state, tmp_path / "model.bin")
    checkpoint = read_checkpoint(tmp_path / "model.bin")
    network = build_network(NetworkConfig("vit-deit-tiny/16"))
    load_into(network, checkpoint)
    assert_encoder_equals(network, state, ENCODER)


def test_old_torch_format(tmp_path: Path) -> None:
    state = vit_tiny(num_classes=0).state_dict()
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "old.pth").kind == "vit"
    torch.save({"model": state, "args": Config()}, tmp_path / "args.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"before PyTorch 1\.6"):
        read_checkpoint(tmp_path / "args.pth")
    whole = (tmp_path / "old.pth").read_bytes()
    for end in (600, len(whole) // 2, len(whole) - 10):
        (tmp_path / "cut.pth").write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"cut\.pth: is damaged \(.*\); fetch it again"):
            read_checkpoint(tmp_path / "cut.pth")


def test_pretraining_leaves_a_stem_random_and_resizes_positions(tmp_path: Path) -> None:
    state = vit_tiny(num_classes=0).state_dict()
    torch.save({"model": state}, tmp_path / "mae.pth")
    checkpoint = read_checkpoint(tmp_path / "mae.pth")
    for layout in ("conv_stem", "hybrid"):
        network = build_network(NetworkConfig("vit-deit-tiny/16", layout, crop_size=128))
        loaded = load_into(network, checkpoint)
        stem = [name for name in loaded.fresh if name.startswith("backbone.")]
        assert stem and all(name.startswith("backbone.patch_embed.proj.") for name in stem)
    table = network.state_dict()["backbone.pos_embed"]  # hybrid owns a table of its crop size's grid
    assert table.shape == (1, 65, 192)
    torch.testing.assert_close(table, resample_positions(state["pos_embed"], (8, 8), "hybrid"))


@pytest.mark.parametrize(
    ("arch", "file_size", "crop"),
    [("convnext_atto", 224, 64), ("vit_tiny_patch16_224", 224, 128), ("gcvit_xxtiny", 224, 128)],
)
def test_timm_backbones_take_timm_weights(arch: str, file_size: int, crop: int, tmp_path: Path) -> None:
    state = timm.create_model(arch, **({} if "convnext" in arch else {"img_size": file_size})).state_dict()
    torch.save(state, tmp_path / "timm.pth")
    network = build_network(NetworkConfig(arch, crop_size=crop))
    loaded = load_into(network, read_checkpoint(tmp_path / "timm.pth"))
    assert all(name.startswith(("roi_head.", "mask_head.")) for name in loaded.fresh)


def small(layout: str = "patch", **options: Any) -> MALNetwork:
    return build_network(NetworkConfig("vit-deit-tiny/16", layout, 64, depth=1, **options))


def test_own_format_round_trip(tmp_path: Path) -> None:
    student, teacher = (
        small("hybrid", mask_head_hidden_channel=32),
        small("hybrid", mask_head_hidden_channel=32),
    )
    optimizer = torch.optim.AdamW(student.parameters())
    student(torch.randn(1, 3, 64, 64), torch.tensor([50.0])).mean().backward()
    optimizer.step()
    path = tmp_path / "last.pth"
    save_checkpoint(
        path,
        student.config,
        student=student.state_dict(),
        teacher=teacher.state_dict(),
        meta={"step": 3, "run": {"lr": 1e-3, "sizes": [1, 2]}},
        trainer={"optimizer": optimizer.state_dict(), "step": 3},
    )
    assert torch.load(path, weights_only=True)["format"] == "mal-trt"
    assert os.listdir(tmp_path) == ["last.pth"]
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == student.config and checkpoint.kind == "mal-trt"
    assert checkpoint.meta == {"step": 3, "run": {"lr": 1e-3, "sizes": [1, 2]}}
    assert checkpoint.trainer is not None
    torch.testing.assert_close(checkpoint.trainer["optimizer"], optimizer.state_dict(), rtol=0, atol=0)
    other = build_network(checkpoint.config)
    for part, network in (("student", student), ("teacher", teacher)):
        load_into(other, checkpoint, part)
        torch.testing.assert_close(dict(other.state_dict()), dict(network.state_dict()), rtol=0, atol=0)


def test_save_failure_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        save_checkpoint(tmp_path / "missing" / "x.pth", small().config, student={})
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        save_checkpoint(tmp_path / "folder.pth", small().config, student={})
    assert os.listdir(tmp_path) == ["folder.pth"]


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def zip_with_pickle(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3")


def test_malicious_pickles_run_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    command = f"touch {mark}"
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": Malicious(command)}, tmp_path / "reduce.pth")
    checkpoint = read_checkpoint(tmp_path / "reduce.pth")
    assert checkpoint.kind == "timm"
    shell = command.encode()
    programs = {
        "global": b"cos\nsystem\n(V" + shell + b"\ntR.",
        "inst": b"(V" + shell + b"\nios\nsystem\n.",
        "eval": b'cbuiltins\neval\n(V__import__("os").system("' + shell + b'")\ntR.',
        "getattr": b"cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR.",
        "build": b"ccollections\nOrderedDict\n(dV__class__\ncos\nsystem\nsb.",
    }
    for name, program in programs.items():
        zip_with_pickle(tmp_path / f"{name}.pth", program)
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / f"{name}.pth")
        (tmp_path / f"{name}.raw").write_bytes(program)
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / f"{name}.raw")
    old = tmp_path / "old.pth"
    torch.save({"x": Malicious(command)}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError):
        read_checkpoint(old)
    assert not mark.exists()


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(10**11)}, tmp_path / "bomb.pth")
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_wrong_files_get_one_clear_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(small().state_dict(), whole)
    contents: dict[str, tuple[bytes, str]] = {
        "missing.pth": (b"", "No such file"),
        "empty.pth": (b"", "is empty"),
        "page.pth": (b"<!DOCTYPE html><html></html>", "web page"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "model.tlt": (os.urandom(600), "encrypted .tlt"),
        "cut.pth": (whole.read_bytes()[:5000], "truncated"),
        "m.onnx": (b"\x08\x0a\x12\x07pytorch", "ONNX model"),
        "noise.pth": (b"\x01\x02" * 300, "not a PyTorch or safetensors"),
        "plain.pkl": (pickle.dumps({"a": 1}), "pickle that is not PyTorch's"),
    }
    for name, (data, message) in contents.items():
        path = tmp_path / name
        if name != "missing.pth":
            path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert message in str(caught.value) and str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    for content, message in [
        ({"epoch": 3}, "no tensors, only epoch"),
        ([1, 2], "holds a list"),
        ({"state_dict_encrypted": True, "state_dict": 1}, "encrypted"),
        ({"format": "mal-trt", "version": 99}, "version 99"),
        ({"format": "mal-trt", "version": 1, "config": {"colour": 1}, "student": {}}, "colour"),
        ({"format": "mal-trt", "version": 1}, "damaged"),
        ({"student.backbone.stages.0.weight": torch.ones(1)}, "another backbone|no MAL network"),
    ]:
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match=message):
            read_checkpoint(tmp_path / "x.pth")


def test_load_names_what_is_missing_and_what_the_file_looks_like(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(InputError) as caught:
        load_into(small(), read_checkpoint(tmp_path / "resnet.pth"))
    assert "backbone.cls_token" in str(caught.value) and "looks like a ResNet" in str(caught.value)
    state = small().state_dict()
    del state["mask_head.convs.2.conv.bias"]
    torch.save(state, tmp_path / "holed.pth")
    with pytest.raises(InputError, match=r"lacks 1 of .*mask_head\.convs\.2\.conv\.bias"):
        load_into(small(), read_checkpoint(tmp_path / "holed.pth"))
    torch.save(small(mask_head_hidden_channel=64).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(InputError, match="expected 256x192x3x3"):
        load_into(small(), read_checkpoint(tmp_path / "narrow.pth"))
