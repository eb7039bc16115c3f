"""Parity of an ONNX file: its logits and PyTorch's on real crops, kept beside it. An engine's is `artifacts.parity`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mal_trt.artifacts.contract import Contract
from mal_trt.base.errors import InputError, RunError
from mal_trt.export.graph import MEAN, STD
from mal_trt.formats.images import ImageProblem, open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.training.network import MALNetwork

# What an exported graph may differ by from PyTorch in float64: so many times what PyTorch's own float32 does (another
# order of the same sums, on another processor), or this share of the logits' range, whichever is more.
TIMES_FLOAT32 = 4.0
TOLERANCE = 1e-4
MOST_CROPS = 8
CROPS = "parity_crops.npz"


@dataclass(frozen=True)
class ParityReference:
    """Crops and the FP32 PyTorch logits of each, for one or three size classes.

    image: uint8 [K,3,S,S]. sizes: the G size classes. logits: output name -> float32 [G,K,1,L,L].
    exact: the same in float64, which the file does not keep.
    """

    image: np.ndarray
    sizes: tuple[SizeClass, ...]
    logits: Mapping[str, np.ndarray]
    exact: Mapping[str, np.ndarray]

    def save(self, path: Path) -> None:
        """As .npz; see `save_references`."""
        save_references(path, [self])


def save_references(path: Path, references: Sequence[ParityReference]) -> None:
    """As .npz: image, size_classes int64 [G], and the logits under their output names. Where crops have several sides
    there is one reference for each size class, and its arrays are called `small.image` and so on."""
    arrays: dict[str, Any] = {}
    for one in references:
        before = f"{one.sizes[0].name.lower()}." if len(references) > 1 else ""
        own = {"image": one.image, "size_classes": np.array(one.sizes, np.int64), **one.logits}
        arrays |= {before + name: values for name, values in own.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


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
    return _channels_first([np.asarray(crop) for crop in resized])


def crops_from_pictures(images: Path, boxes: Path | None, contract: Contract, side: int) -> np.ndarray:
    """Up to 8 crops of one side S, uint8 [K,3,S,S]: of COCO boxes, or, if `boxes` is None, of the middle of each
    picture."""
    source = open_images(images)
    wanted = _boxes(boxes) if boxes is not None else [(name, None) for name in _pictures(images)]
    crops = []
    for name, box in wanted:
        try:
            picture = source.load(name)
        except ImageProblem:
            continue
        height, width = picture.shape[:2]
        box = box or (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
        frame = make_frame(box, width, height, side, contract.margin_rate)
        crops.append(read_crop(picture, frame.extended, side))
        if len(crops) == MOST_CROPS:
            break
    if not crops:
        raise InputError(f"{images}: no picture could be read for the parity check; leave --parity-images out")
    return _channels_first(crops)


def reference(networks: Mapping[str, MALNetwork], image: np.ndarray, sizes: tuple[SizeClass, ...]) -> ParityReference:
    """PyTorch's logits of uint8 crops [K,3,S,S] for each size class, in FP32 and in float64."""
    exact = {part: copy.deepcopy(network).double() for part, network in networks.items()}
    wide = _logits(exact, image, sizes, torch.float64)
    return ParityReference(image, sizes, _logits(networks, image, sizes, torch.float32), wide)


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
                threshold = backend.contract.thresholds[size]
                one = _judge(actual, expected.logits[name][row], exact[row], threshold)
                found = Parity(
                    max(found.absolute, one.absolute),
                    max(found.relative, one.relative),
                    max(found.float32, one.float32),
                    found.pixels + one.pixels,
                )
    finally:
        backend.close()
    return found


def _judge(actual: np.ndarray, single: np.ndarray, exact: np.ndarray, threshold: float) -> Parity:
    """Logits of ONNX Runtime beside PyTorch's in float32 and float64, [K,1,L,L]; RunError beyond the limit."""
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
    edge = math.log(threshold / (1 - threshold)) if threshold > 0 else -math.inf
    return Parity(error, error / scale, own / scale, int(((actual > edge) != (exact > edge)).sum()))


def difference_and_span(actual: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the range (max - min) of `expected`."""
    return float(np.abs(actual - expected).max()), float(expected.max() - expected.min())


def _channels_first(crops: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))


def _pictures(images: Path) -> list[str]:
    """Names to try: the files of a folder, or the one picture itself."""
    if images.is_file():
        if images.suffix == ".tar":
            raise InputError(f"{images}: name the boxes of a .tar's pictures too, or give a folder")
        return [images.name]
    return sorted(str(p.relative_to(images)) for p in images.rglob("*") if p.is_file())


def _boxes(path: Path) -> list[tuple[str, tuple[float, float, float, float] | None]]:
    """(file name, XYXY box) of the annotations of a COCO document."""
    try:
        document: Any = json.loads(path.read_text())
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        found: list[tuple[str, tuple[float, float, float, float] | None]] = []
        for annotation in document["annotations"]:
            x, y, width, height = (float(v) for v in annotation["bbox"])
            if width > 0 and height > 0 and annotation["image_id"] in names:
                found.append((names[annotation["image_id"]], (x, y, x + width, y + height)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a COCO document with images and boxes ({error})") from None
    return found
