"""What every backend demands of its input, and how it names its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mal_trt.artifacts.contract import REEXPORT, Contract
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass

LOGITS = "logits"


def check_image(image: np.ndarray, contract: Contract, size: SizeClass) -> None:
    """InputError unless a batch of crops is [N,3,S,S] and of the type that the model takes for a size class."""
    side = contract.side(size)
    if image.ndim != 4 or image.shape[1:] != (3, side, side):
        boxes = f" for {size.name.lower()} boxes" if contract.sizes else ""
        raise InputError(f"image batch of shape {image.shape}: this model takes [N, 3, {side}, {side}]{boxes}")
    if contract.input_dtype == "uint8" and image.dtype != np.uint8:
        raise InputError(f"image batch of dtype {image.dtype}: this model takes uint8, RGB 0..255")


def check_graph(inputs: Mapping[str, str], outputs: Sequence[str], contract: Contract, path: Path) -> bool:
    """Whether a graph takes `head_grid`; InputError if it is not what its contract promises. inputs: name -> type, such
    as "uint8". path: names the file in errors."""
    expected = {"image", "head_grid"} if contract.head == "dynamic" else {"image"}
    if set(inputs) != expected:
        raise InputError(
            f"{path}: its inputs are {sorted(inputs)}, but its metadata (head {contract.head}) promises "
            f"{sorted(expected)}; {REEXPORT}"
        )
    if inputs["image"] != contract.input_dtype:
        raise InputError(f"{path}: `image` is {inputs['image']}, its metadata says {contract.input_dtype}; {REEXPORT}")
    if LOGITS not in outputs:
        raise InputError(f"{path}: it has no output called `{LOGITS}`; {REEXPORT}")
    return "head_grid" in inputs


def output_names(contract: Contract) -> tuple[str, ...]:
    """All outputs of a model: its logits, and those of each network where it carries two."""
    more = ("student", "teacher") if contract.weights == "mixed" else ()
    return (LOGITS, *(f"{LOGITS}_{part}" for part in more))


def output_name(weights: str | None, contract: Contract, outputs: Sequence[str], where: str) -> str:
    """Name of the output with the logits of "student", "teacher", "mixed" or None (default); `where` names the file."""
    if weights is None or weights == contract.weights:
        return LOGITS
    if f"{LOGITS}_{weights}" in outputs:
        return f"{LOGITS}_{weights}"
    raise InputError(
        f"{where}: it holds {contract.weights} weights, not {weights}; "
        "export with `--weights mixed` (and build the engine again) to choose at run time"
    )
