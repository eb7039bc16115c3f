"""Inner widths: cutting what does nothing changes nothing, and a network that was cut is built again from its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from mal_trt.base.errors import InputError
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.importance import choose, importance, make_up, work
from mal_trt.training.moments import Moments
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network
from mal_trt.training.trainer import network_options
from mal_trt.training.widths import cut, trimmed, widths

CONFIGS = {
    "patch": NetworkConfig("vit-deit-tiny/16", "patch", 64, 4, 16, 16, depth=2),
    "hybrid": NetworkConfig("vit-deit-tiny/16", "hybrid", 64, 4, 16, depth=2, adjust_scale=False),
    "lite": NetworkConfig("mal-lite0", crop_size=64, mask_head_hidden_channel=16),
}
AREA = torch.tensor([1e5, 500.0])


def network_of(name: str, seed: int = 3) -> MALNetwork:
    torch.manual_seed(seed)
    return build_network(CONFIGS[name]).eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_makes_nothing_can_be_cut(name: str) -> None:
    """Of each width every other value is made zero by its makers; without them the logits are the same."""
    network = network_of(name)
    kept = {}
    with torch.no_grad():
        for width in widths(network).values():
            if width.kind == "block":
                continue
            gone = torch.arange(1, width.count, 2)
            inside = (gone[:, None] * width.each + torch.arange(width.each)).flatten()
            # Attention mixes only values: zero values of a head are zero, whatever its queries and keys.
            for maker, copies in width.makers:
                module = network.get_submodule(maker)
                offset = (copies - 1) * module.weight.shape[0] // copies
                module.weight[inside + offset] = 0
                if module.bias is not None:
                    module.bias[inside + offset] = 0
            for depthwise in width.through:
                network.get_submodule(depthwise).bias[inside] = 0
            kept[width.name] = torch.arange(0, width.count, 2)
        expected = network(images(), AREA)
        cut(network, kept)
        torch.testing.assert_close(network(images(), AREA), expected, rtol=1e-4, atol=1e-4)
    assert all(widths(network)[name].count == len(indices) for name, indices in kept.items())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_that_adds_nothing_can_go(name: str) -> None:
    network = network_of(name)
    block = [width.name for width in widths(network).values() if width.kind == "block"][-1]
    with torch.no_grad():
        for last in ("attn.proj", "mlp.fc2", "convs.2.conv"):
            if hasattr(network.get_submodule(block), last.partition(".")[0]):
                network.get_submodule(f"{block}.{last}").weight.zero_()
                network.get_submodule(f"{block}.{last}").bias.zero_()
        expected = network(images(), AREA)
        cut(network, {block: torch.arange(0)})
        torch.testing.assert_close(network(images(), AREA), expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_network_that_was_cut_is_built_again(name: str, tmp_path: Path) -> None:
    network = network_of(name)
    full = work(network)
    scores = importance(network, [images()], [AREA])
    cut(network, choose(full, scores, 0.6))
    assert work(network).total() <= 0.6 * work(network_of(name)).total()
    config = replace(CONFIGS[name], trimmed=trimmed(network_of(name), network))
    save_checkpoint(tmp_path / "small.pth", config, student=network.state_dict())
    checkpoint = read_checkpoint(tmp_path / "small.pth")
    assert checkpoint.config == config and config.trimmed
    again = build_network(checkpoint.config).eval()
    load_into(again, checkpoint)
    with torch.no_grad():
        assert torch.equal(again(images(), AREA), network(images(), AREA))
    assert network_options(tmp_path / "small.pth")["trimmed"] == config.trimmed


def test_work_is_counted_as_it_falls() -> None:
    """What is reckoned while widths are chosen is what the network then does."""
    network = network_of("lite")
    reckoned = work(network)
    kept = choose(reckoned, importance(network, [images()], [AREA]), 0.7)
    cut(network, kept)
    assert work(network).total() == pytest.approx(reckoned.total())


def test_importance_is_of_what_matters() -> None:
    """A neuron whose output is not used has none; one that is used more has more."""
    network = network_of("patch")
    taker = network.get_submodule("backbone.blocks.0.mlp.fc2")
    with torch.no_grad():
        taker.weight[:, 0] = 0
        taker.weight[:, 1] *= 30
    before = [p.requires_grad for p in network.parameters()]
    found = importance(network, [images(8)], [torch.full((8,), 1e5)])["backbone.blocks.0.mlp"]
    assert found[0] == 0 and found[1] > found[2:].median() > 0
    assert [p.requires_grad for p in network.parameters()] == before


def test_what_is_left_makes_up_for_what_goes() -> None:
    """Half the channels are copies of the others: without them nothing need be lost, and cutting alone loses much."""
    network = network_of("hybrid")
    first = network.get_submodule("mask_head.convs.0.conv")
    with torch.no_grad():
        first.weight[8:], first.bias[8:] = first.weight[:8], first.bias[:8]
        expected = network(images(6), torch.full((6,), 1e5))
    kept, plain = {"mask_head.convs.0": torch.arange(8)}, build_network(CONFIGS["hybrid"]).eval()
    plain.load_state_dict(network.state_dict())
    moments = Moments(network, ["mask_head.convs.1.conv"])
    moments.add([images(6)], [torch.full((6,), 1e5)])
    make_up(network, moments, kept)
    errors = []
    for one in (plain, network):
        cut(one, kept)
        with torch.no_grad():
            errors.append(float((one(images(6), torch.full((6,), 1e5)) - expected).abs().mean()))
    assert errors[1] < 0.2 * errors[0]


def test_less_than_can_be_cut() -> None:
    network = network_of("lite")
    with pytest.raises(InputError, match=r"--macs 0\.01: this network can be cut to 0\.\d\d of its multiplications"):
        choose(work(network), importance(network, [images()], [AREA]), 0.01)


@pytest.mark.parametrize("entry", [("backbone.blocks.0.mlp", 9999), ("nothing", 3), ("backbone.blocks.0.attn", 0)])
def test_widths_that_are_not_there(entry: tuple[str, int]) -> None:
    with pytest.raises(InputError, match="trimmed"):
        build_network(replace(CONFIGS["patch"], trimmed=(entry,)))
