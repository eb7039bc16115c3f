"""What pruning costs the bundled model before any training: 2:4 zeros by score and kind of layer, widths by `--macs`.

    python benchmarks/prune.py --data DATA --out benchmarks/results/prune.json

DATA holds a folder a data set, each with images-00.tar and train_boxes.json. Half the crops give the scores; on the
others the masks, at the threshold .3 and not refined, are compared with the dense network's (mean IoU). The zeros by
magnitude are compared with those of PyTorch's torch.ao.pruning. --modelopt, in an environment that has it, instead
compares zeros and masks with those of NVIDIA ModelOpt's "sparse_magnitude" and "sparsegpt", in the layers it takes.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import save
from torch import Tensor

from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import load_into
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.exported import read_start
from mal_trt.training.importance import choose, importance, make_up, work
from mal_trt.training.moments import Moments
from mal_trt.training.network import MALNetwork, build_network
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.sparse import KINDS, SCORES, is_two_four, sparse_candidates, sparse_weight
from mal_trt.training.widths import cut, widths

SETS = ("coco", "coco_person", "sysu_shape", "tile_defects")
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
THRESHOLD, MARGIN, BATCH = 0.3, 0.3, 16


def batches(data: Path, size: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """(normalised crops, areas), as many of each set."""
    found = []
    for name in SETS:
        boxes = read_training_boxes([data / name / "images-00.tar"], [data / name / "train_boxes.json"], 256, 1e10)
        samples = Samples(boxes, SampleRules(size, 5, (MARGIN, MARGIN)), 0, count)
        for start in range(0, count, BATCH):
            part = [samples[i] for i in range(start, start + BATCH)]
            crops = normalise(torch.stack([sample["teacher"] for sample in part]))
            found.append((crops, torch.stack([sample["area"] for sample in part])))
    return found


@torch.no_grad()
def masks(network: MALNetwork, crops: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([network(image, area).sigmoid() > THRESHOLD for image, area in crops]).flatten(1)


def sparse(network: MALNetwork, names: list[str], score: str, moments: Moments) -> MALNetwork:
    network = copy.deepcopy(network)
    for name in names:
        layer: Any = network.get_submodule(name)
        with torch.no_grad():
            layer.weight.copy_(sparse_weight(layer.weight, score, moments.of(name)))
        assert is_two_four(layer.weight)
    return network


def parameter(layer: torch.nn.Module) -> Tensor:
    """A layer's weights, to look at or to write into."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def of_torch(network: MALNetwork, names: list[str]) -> dict[str, Tensor]:
    """Zeros of torch.ao's WeightNormSparsifier, which takes matrices only: 1x1 convolutions are given as Linears."""
    from torch.ao.pruning import WeightNormSparsifier  # type: ignore[attr-defined]

    weights = [parameter(network.get_submodule(name)) for name in names]
    model = torch.nn.Sequential(*(torch.nn.Linear(weight.shape[1], weight.shape[0]) for weight in weights))
    for linear, weight in zip(model, weights, strict=True):
        parameter(linear).copy_(weight.flatten(1))
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": f"{index}.weight"} for index in range(len(names))])
    sparsifier.step()
    made = [parameter(linear) for linear in model]
    return {name: one.view_as(weight) for name, one, weight in zip(names, made, weights, strict=True)}


def of_modelopt(network: MALNetwork, names: list[str]) -> dict[str, Tensor]:
    """Zeros of ModelOpt's "sparse_magnitude", which is NVIDIA's ASP."""
    model = by_modelopt(network, "sparse_magnitude", [])
    return {name: parameter(model.get_submodule(name)) for name in names}


def by_modelopt(network: MALNetwork, mode: str, learn: list[tuple[Tensor, Tensor]]) -> MALNetwork:
    """The network with ModelOpt's 2:4 zeros."""
    import modelopt.torch.sparsity as mts

    config = {"data_loader": learn, "collect_func": lambda batch: batch} if learn else None
    model: Any = mts.sparsify(copy.deepcopy(network), mode, config)
    made: MALNetwork = mts.export(model)
    return made


def same_zeros(network: MALNetwork, other: Callable[[MALNetwork, list[str]], dict[str, Tensor]]) -> dict[str, int]:
    """Of the Linears and 1x1 convolutions: in how many layers the other tool keeps weights of just our
    magnitude (of equal ones it may keep others), and how many it leaves dense."""
    names = [name for name, kind in sparse_candidates(network).items() if kind != "conv"]
    theirs = other(network, names)
    ours = {name: sparse_weight(network.get_submodule(name).weight, "magnitude", None) for name in names}  # type: ignore[arg-type]
    equal = sum(torch.allclose(theirs[name].abs().sum(), ours[name].abs().sum(), rtol=1e-6) for name in names)
    return {"layers": len(names), "equal": equal, "dense": sum(not is_two_four(theirs[name]) for name in names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=96, help="crops of each set, half to score and half to compare on")
    parser.add_argument("--modelopt", action="store_true", help="only compare, with ModelOpt too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = read_start(arguments.model)
    assert source.config is not None
    network = build_network(source.config).eval()
    load_into(network, source, "student")
    tools = {"torch.ao": of_torch} | ({"modelopt": of_modelopt} if arguments.modelopt else {})
    figures: dict[str, Any] = {"zeros": {name: same_zeros(network, tool) for name, tool in tools.items()}}
    print(figures["zeros"])
    crops = batches(arguments.data, source.config.crop_size, arguments.count)
    figures |= (beside_modelopt if arguments.modelopt else costs)(network, crops)
    save(arguments.out, figures)


def agreement(other: MALNetwork, held: list[tuple[Tensor, Tensor]], expected: Tensor) -> float:
    """Mean IoU of the masks of another network with those expected."""
    found = masks(other, held)
    union = (found | expected).sum(1).clamp_min(1)
    return round(float(((found & expected).sum(1) / union).mean()), 4)


def beside_modelopt(network: MALNetwork, crops: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    learn, held = crops[::2], crops[1::2]
    expected = masks(network, held)
    found: dict[str, Any] = {"crops": len(expected)}
    for theirs, score in (("sparse_magnitude", "magnitude"), ("sparsegpt", "sparsegpt")):
        made = by_modelopt(network, theirs, learn)
        names = [name for name in sparse_candidates(network) if is_two_four(parameter(made.get_submodule(name)))]
        moments = Moments(network, names)
        moments.add(*([*part] for part in zip(*learn, strict=True)))
        ours = sparse(network, names, score, moments)
        found[score] = {"layers": len(names)}
        found[score] |= {n: agreement(o, held, expected) for n, o in (("modelopt", made), ("mal_trt", ours))}
        print(score, found[score], flush=True)
    return found


def costs(network: MALNetwork, crops: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    learn, held = crops[::2], crops[1::2]
    images, areas = [list(part) for part in zip(*learn, strict=True)]
    expected = masks(network, held)
    kinds = sparse_candidates(network)
    moments = Moments(network, list(kinds))
    moments.add(images, areas)
    two_four: dict[str, dict[str, float]] = {}
    for group in (*((kind,) for kind in KINDS), KINDS):
        names = [name for name, kind in kinds.items() if kind in group]
        name = f"{len(names)} {'+'.join(group)}"
        made = {score: sparse(network, names, score, moments) for score in SCORES}
        two_four[name] = {score: agreement(one, held, expected) for score, one in made.items()}
        print(name, two_four[name], flush=True)
    takers = [taker for width in widths(network).values() for taker in width.takers]
    moments, scores = Moments(network, takers), importance(network, images, areas)
    moments.add(images, areas)
    narrow: dict[str, dict[str, float]] = {}
    for share in SHARES:
        kept = choose(work(network), scores, share)
        alone, fitted = copy.deepcopy(network), copy.deepcopy(network)
        make_up(fitted, moments, kept)
        for one in (alone, fitted):
            cut(one, kept)
        narrow[str(share)] = {
            "cut": agreement(alone, held, expected),
            "fitted": agreement(fitted, held, expected),
            "multiplications": round(work(fitted).total()),
            "parameters": sum(parameter.numel() for parameter in fitted.parameters()),
        }
        print(share, narrow[str(share)], flush=True)
    return {"crops": len(expected), "two_four": two_four, "macs": narrow}


if __name__ == "__main__":
    main()
