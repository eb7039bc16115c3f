"""MAL's networks against the golden numbers (outputs of the published implementations, seeded weights)."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mal_trt.base.errors import InputError
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network
from mal_trt.training.vit import ViT

GOLDEN = Path(__file__).parent.parent / "golden"
SEEDED = runpy.run_path(str(GOLDEN / "seeded.py"))
weight, image = SEEDED["weight"], SEEDED["image"]
TOLERANCE = 1e-3
LAYOUTS = {"v2": "patch", "convstem": "conv_stem"}


def keys(name: str) -> dict[str, tuple[int, ...]]:
    document = json.loads((GOLDEN / f"keys_{name}.json").read_text())
    return {key.removeprefix("student."): tuple(shape) for key, shape in document["keys"].items()}


def seeded_network(flavour: str, prefix: str = "student.", **options: Any) -> MALNetwork:
    config = NetworkConfig("vit-deit-tiny/16", LAYOUTS[flavour], **options)
    network = build_network(config).eval()
    state = {key: torch.from_numpy(weight(prefix + key, shape)) for key, shape in keys("tiny_" + flavour).items()}
    network.load_state_dict(state)
    return network


def areas(boxes: np.ndarray) -> torch.Tensor:
    boxes = boxes.astype(np.float64)
    return torch.from_numpy((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def crops(name: str, count: int, size: int) -> torch.Tensor:
    return torch.from_numpy(image(name, (count, 3, size, size)))


def assert_close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert tuple(actual.shape) == expected.shape
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


@pytest.fixture(scope="module", params=["v2", "convstem"])
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def golden(flavour: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"model_tiny_{flavour}.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def network(flavour: str) -> MALNetwork:
    return seeded_network(flavour)


@pytest.mark.parametrize("arch", ["tiny", "base"])
@pytest.mark.parametrize("published", ["v2", "convstem"])
def test_state_dict_is_the_published_one_in_order(arch: str, published: str) -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig(f"vit-mae-{arch}/16", LAYOUTS[published]))
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert list(own.items()) == list(keys(f"{arch}_{published}").items())


@torch.no_grad()
def test_adjust_scale_at_512(network: MALNetwork, golden: dict[str, np.ndarray]) -> None:
    pixels = crops("images512", 3, 512)
    backbone = network.backbone
    assert isinstance(backbone, ViT)
    tokens = backbone.tokens(backbone.embed(pixels)[-1])
    assert_close(tokens[:, [0, *range(64, 1025, 64)]], golden["A_tokens"])
    positions = backbone.positions((32, 32))
    assert_close(positions[:, [0, *range(64, 1025, 64)], ::4], golden["A_pos"])
    features, k = network.encode(pixels)
    assert_close(k, golden["A_roi"])
    for row, (name, side) in enumerate([("small", 16), ("medium", 32), ("large", 64)]):
        expected = golden[f"A_maskhead_{name}"]
        resized = torch.nn.functional.interpolate(features[0], size=(side, side), mode="bilinear")
        dense = network.mask_head(resized)
        step = dense.shape[-1] // 16
        sample = dense[:, ::32, ::step, ::step]
        assert_close(sample[row : row + 1], expected)
    logits = network(pixels, areas(golden["A_boxes"]))
    assert_close(logits, golden["A_seg"])
    stats = logits.double().flatten(1)
    sums = torch.stack(
        [stats.mean(1), stats.std(1, unbiased=False), stats.amin(1), stats.amax(1), stats.abs().sum(1)], dim=1
    )
    np.testing.assert_allclose(sums[:, :4].numpy(), golden["A_seg_stats"][:, :4], atol=TOLERANCE)
    np.testing.assert_allclose(sums[:, 4].numpy(), golden["A_seg_stats"][:, 4], rtol=1e-4)


@torch.no_grad()
def test_other_crop_sizes_and_mixed_groups(network: MALNetwork, golden: dict[str, np.ndarray]) -> None:
    pixels = crops("images256", 3, 256)
    backbone = network.backbone
    assert isinstance(backbone, ViT)
    tokens = backbone.tokens(backbone.embed(pixels)[-1])[:, ::32]
    assert_close(tokens, golden["C_tokens"])
    assert_close(network(pixels, areas(golden["C_boxes"])), golden["C_seg"])
    assert_close(network(pixels, areas(golden["F_boxes"])), golden["F_seg"])
    assert_close(network(crops("images224", 1, 224), areas(golden["E_boxes"])), golden["E_seg"])


@torch.no_grad()
def test_boxes_on_the_area_bounds_get_logits(network: MALNetwork, golden: dict[str, np.ndarray]) -> None:
    """A documented difference: the reference leaves areas of exactly 0, 1024 and 9216 at logit 0."""
    pixels = crops("images256", 3, 256)
    bounds = areas(golden["D_boxes"])
    assert sorted(bounds.tolist()) == [0, 1024, 9216] and not golden["D_seg_absmax"].any()
    logits = network(pixels, bounds)
    assert (logits.abs().amax(dim=(1, 2, 3)) > 0.1).all()
    inside = {0: 1.0, 1024: 1000.0, 9216: 9000.0}
    same = network(pixels, torch.tensor([inside[int(a)] for a in bounds]))
    torch.testing.assert_close(logits, same)


@torch.no_grad()
def test_without_scale_adjustment(flavour: str, golden: dict[str, np.ndarray]) -> None:
    anything = torch.ones(3)
    for name, size, pre, sample in [
        ("B", 512, 1, (1, 4)),
        ("B256", 256, 1, (1, 2)),
        ("Bpre2", 256, 2, (3, 8)),
    ]:
        network = seeded_network(flavour, adjust_scale=False, mask_scale_ratio_pre=pre)
        logits = network(crops(f"images{size}", 3, size), anything)
        assert tuple(logits.shape) == tuple(golden[f"{name}_shape"])
        first, step = sample
        assert_close(logits[..., first::step, first::step], golden[f"{name}_seg"])


@torch.no_grad()
def test_teacher_weights(flavour: str, golden: dict[str, np.ndarray]) -> None:
    network = seeded_network(flavour, prefix="teacher.")
    assert_close(network(crops("images256", 3, 256), areas(golden["C_boxes"])), golden["T_seg"])


@torch.no_grad()
def test_one_grid_equals_one_group(network: MALNetwork) -> None:
    pixels = crops("images256", 2, 256)
    for area, grid in [(500.0, 8), (5000.0, 16), (50000.0, 32)]:
        torch.testing.assert_close(
            network.forward_grid(pixels, grid), network(pixels, torch.tensor([area, area])), rtol=0, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("crop", [128, 192])
def test_hybrid_layout(crop: int) -> None:
    torch.manual_seed(0)
    config = NetworkConfig("vit-deit-tiny/16", "hybrid", crop, mask_head_hidden_channel=64, depth=6, adjust_scale=True)
    network = build_network(config).eval()
    pixels = torch.randn(3, 3, crop, crop)
    logits = network(pixels, torch.tensor([100000.0, 500.0, 5000.0]))
    assert logits.shape == (3, 1, crop // 4, crop // 4)
    assert 0.01 < float(logits.std()) < 5  # neither dead nor saturated before training
    alone = network(pixels[1:2], torch.tensor([500.0]))
    torch.testing.assert_close(logits[1:2], alone, rtol=0, atol=1e-4)
    channels_last = network.to(memory_format=torch.channels_last)(
        pixels.contiguous(memory_format=torch.channels_last), torch.tensor([100000.0, 500.0, 5000.0])
    )
    torch.testing.assert_close(logits, channels_last, rtol=0, atol=1e-4)


def test_every_trainable_parameter_gets_a_gradient() -> None:
    for layout in ("patch", "conv_stem", "hybrid"):
        network = build_network(NetworkConfig("vit-deit-tiny/16", layout, 64, depth=1))
        network(torch.randn(2, 3, 64, 64), torch.tensor([100.0, 5000.0])).square().mean().backward()
        without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []


@torch.no_grad()
@pytest.mark.parametrize(
    "arch",
    ["resnet18", "convnext_atto", "gcvit_xxtiny", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"],
)
def test_timm_backbones(arch: str) -> None:
    network = build_network(NetworkConfig(arch, crop_size=64 if "vit_" not in arch else 128)).eval()
    assert network.config.layout == "timm"
    size = network.config.crop_size
    logits = network(torch.randn(2, 3, size, size), torch.tensor([100.0, 5000.0]))
    assert logits.shape == (2, 1, size // 4, size // 4)


@torch.no_grad()
def test_huge_with_14_pixel_patches_keeps_the_stride_16_grid() -> None:
    with torch.device("meta"):
        network = build_network(NetworkConfig("vit-mae-huge/14", crop_size=128))
        assert network.backbone.pos_embed.shape == (1, 257, 1280)
    backbone = ViT("vit-tiny/14", "patch", 128, depth=1)
    assert backbone(torch.randn(1, 3, 128, 128))[0].shape == (1, 192, 8, 8)


def test_frozen_stages() -> None:
    network = build_network(NetworkConfig("vit-deit-tiny/16", crop_size=64, depth=3, frozen_stages=(0, 2)))
    frozen = {
        name.split(".")[1] + "." + name.split(".")[2]
        for name, p in network.named_parameters()
        if not p.requires_grad and "head" not in name
    }
    assert frozen == {"patch_embed.proj", "blocks.1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "vit-mae-enormous/16"}, "unknown arch"),
        ({"layout": "stem"}, "expected patch, conv_stem or hybrid"),
        ({"crop_size": 100}, "multiple of 32"),
        ({"mask_scale_ratio_pre": 2}, "scale adjustment needs"),
        ({"arch": "resnet18", "layout": "hybrid"}, "vit-* arch names"),
    ],
)
def test_bad_configuration_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        NetworkConfig(**options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_timm_name() -> None:
    with pytest.raises(InputError, match="neither vit"):
        build_network(NetworkConfig("no_such_net"))
