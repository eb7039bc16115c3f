"""Parity of an ONNX file: its logits and PyTorch's on real crops, kept beside it. An engine's is `artifacts.parity`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.parity_file import ParityCrops
from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration.sample import Spot, crops, draw
from mal_trt.export.graph import MEAN, STD
from mal_trt.formats.boxes import BoxesLike
from mal_trt.formats.images import ImageProblem, open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.network import MALNetwork

HEADS = {size.name.lower(): size for size in SizeClass}  # heads with one grid baked in
# What an exported graph may differ by from PyTorch in float64: this multiple of what PyTorch's own float32 does
# (another order of the same sums, on another processor), or this share of the logits' range, whichever is more.
TIMES_FLOAT32 = 4.0
TOLERANCE = 1e-4
MOST_CROPS = 8
CROPS = "parity_crops.npz"


@dataclass(frozen=True)
class ParityReference(ParityCrops):
    """Crops with PyTorch's FP32 logits, as the parity file keeps them. exact: the same in float64, which it does not
    keep."""

    exact: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Parity:
    """How far ONNX Runtime's logits are from PyTorch's in float64, at worst.

    absolute, and relative to the range (max - min) of the same logits; float32: what PyTorch's own float32 logits
    differ by, relative likewise. pixels: of the logit maps that fall on another side of the model's threshold.
    """

    absolute: float
    relative: float
    float32: float
    pixels: int


def packaged_crops(size: int) -> np.ndarray:
    """The package's own four photo crops, uint8 [4,3,size,size].

    From scikit-image's chelsea, coffee and rocket (CC0) and astronaut (NASA, public domain).
    """
    source = resources.files("mal_trt.export") / CROPS
    with source.open("rb") as file, np.load(file) as archive:
        crops = archive["image"]
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in crops]
    return np.ascontiguousarray(np.stack([np.asarray(crop) for crop in resized]).transpose(0, 3, 1, 2))


def parity_crops(
    contract: Contract, images: Path | str | None, boxes: BoxesLike | None
) -> list[tuple[np.ndarray, tuple[SizeClass, ...]]]:
    """Crops to compare on, uint8 [K,3,S,S], with the size classes that they are run for: once for all classes, or once
    for each where every class has a side of its own.

    They are cut from up to 8 boxes; without boxes, from the middle of up to 8 pictures; without pictures too, they are
    the package's own. InputError or NothingDone if none can be cut.
    """
    classes = tuple(SizeClass) if contract.head == "dynamic" else (HEADS.get(contract.head, SizeClass.MEDIUM),)
    wanted = [(size,) for size in SizeClass] if contract.sizes else [classes]
    if boxes is not None:
        spots = draw([(images, boxes)], MOST_CROPS)
    elif images is not None:
        spots = _middles(images)
    else:
        return [(packaged_crops(contract.side(sizes[0])), sizes) for sizes in wanted]
    return [(_cut(spots, contract, contract.side(sizes[0]), images or boxes), sizes) for sizes in wanted]


def _middles(images: Path | str) -> list[Spot]:
    """A box in the middle of each picture."""
    source, spots = open_images(images), list[Spot]()
    for name in source.names():
        with suppress(ImageProblem):
            height, width = source.load(name).shape[:2]
            box = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
            spots.append(Spot(images, name, width, height, box, SizeClass.MEDIUM, {}))
        if len(spots) == MOST_CROPS:
            break
    return spots


def _cut(spots: Sequence[Spot], contract: Contract, side: int, given: object) -> np.ndarray:
    """Crops of one side S, uint8 [K,3,S,S]; InputError if no picture can be read."""
    one_side = replace(contract, sizes=None, input_size=side, input_dtype="uint8")
    found = [batch.image for batch in crops(spots, one_side, MOST_CROPS)]
    if not found:
        raise InputError(f"{given}: no picture could be read for the parity check; leave --parity-images out")
    return np.concatenate(found)


def reference(networks: Mapping[str, MALNetwork], image: np.ndarray, sizes: tuple[SizeClass, ...]) -> ParityReference:
    """PyTorch's logits of uint8 crops [K,3,S,S] for each size class, in FP32 and in float64."""
    exact = {part: copy.deepcopy(network).double() for part, network in networks.items()}
    wide = _logits(exact, image, sizes, torch.float64)
    return ParityReference(image, sizes, _logits(networks, image, sizes, torch.float32), exact=wide)


def _logits(
    networks: Mapping[str, MALNetwork], image: np.ndarray, sizes: tuple[SizeClass, ...], dtype: torch.dtype
) -> dict[str, np.ndarray]:
    mean, std = torch.tensor(MEAN, dtype=dtype).view(1, 3, 1, 1), torch.tensor(STD, dtype=dtype).view(1, 3, 1, 1)
    normalised = (torch.from_numpy(image).to(dtype) / 255 - mean) / std
    logits: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for part, network in networks.items():
            features, k = network.encode(normalised)
            grids = [network.config.grid(size) for size in sizes]
            maps = [network.decode(features, k, (grid, grid)).numpy() for grid in grids]
            logits[f"logits_{part}"] = np.stack(maps)
    if len(logits) == 1:
        return {"logits": logits.popitem()[1]}
    both = logits["logits_student"] + logits["logits_teacher"]
    return {"logits": both * both.dtype.type(0.5), **logits}


def compare(path: Path, references: Sequence[ParityReference]) -> Parity:
    """Run a written ONNX file on the crops; RunError if it is further off than float32 explains, or on NaN."""
    from mal_trt.backends import open_backend

    backend = open_backend(path, device="cpu", backend="onnxruntime")
    found = Parity(0.0, 0.0, 0.0, 0)
    rows = [(one, row, size) for one in references for row, size in enumerate(one.sizes)]
    try:
        for expected, row, size in rows:
            for name, exact in expected.exact.items():
                weights = name.removeprefix("logits").removeprefix("_") or None
                actual = backend.run(expected.image, size, weights)
                if actual.shape != exact[row].shape:
                    raise RunError(f"the ONNX model gives {actual.shape}, PyTorch {exact[row].shape}")
                one = _judge(actual, expected.logits[name][row], exact[row], backend.contract.border(size))
                found = Parity(
                    max(found.absolute, one.absolute),
                    max(found.relative, one.relative),
                    max(found.float32, one.float32),
                    found.pixels + one.pixels,
                )
    finally:
        backend.close()
    return found


def _judge(actual: np.ndarray, single: np.ndarray, exact: np.ndarray, border: float) -> Parity:
    """Logits of ONNX Runtime beside PyTorch's in float32 and float64, [K,1,L,L]; RunError beyond the limit. border:
    logit above which a pixel is foreground."""
    error, span = difference_and_span(actual, exact)
    own, _ = difference_and_span(single, exact)
    limit = max(TIMES_FLOAT32 * own, TOLERANCE * span)
    scale = span or 1.0
    if not error <= limit:
        raise RunError(
            f"parity failed: ONNX Runtime's logits are {error / scale:.1e} of their range away from PyTorch's in "
            f"float64, PyTorch's own in float32 {own / scale:.1e} (limit {limit / scale:.1e}); nothing was written, "
            "try another --opset and report the checkpoint's architecture"
        )
    return Parity(error, error / scale, own / scale, int(((actual > border) != (exact > border)).sum()))


def difference_and_span(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the range (max - min) of `expected`."""
    return float(np.abs(actual - expected).max()), float(expected.max() - expected.min())
