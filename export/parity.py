"""Parity of an ONNX file: its logits and PyTorch's on real crops, kept beside it. An engine's is `artifacts.parity`."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

TOLERANCE = 1e-4
MOST_CROPS = 8
CROPS = "parity_crops.npz"


@dataclass(frozen=True)
class ParityReference:
    """Crops and the FP32 PyTorch logits of each, for one or three size classes.

    image: uint8 [K,3,S,S]. sizes: the G size classes. logits: output name -> float32 [G,K,1,L,L].
    """

    image: np.ndarray
    sizes: tuple[SizeClass, ...]
    logits: Mapping[str, np.ndarray]

    def save(self, path: Path) -> None:
        """As .npz: image, size_classes int64 [G], and the logits under their output names."""
        sizes = np.array(self.sizes, np.int64)
        arrays: dict[str, Any] = {"image": self.image, "size_classes": sizes, **self.logits}
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)


@dataclass(frozen=True)
class Parity:
    """Worst disagreement found: absolute, and relative to the range (max - min) of the same logits."""

    absolute: float
    relative: float


def packaged_crops(size: int) -> np.ndarray:
    """The package's own four photo crops, uint8 [4,3,size,size].

    From scikit-image's chelsea, coffee and rocket (CC0) and astronaut (NASA, public domain).
    """
    source = resources.files("mal_trt.export") / CROPS
    with source.open("rb") as file, np.load(file) as archive:
        crops = archive["image"]
    resized = [Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC) for c in crops]
    return _channels_first([np.asarray(crop) for crop in resized])


def crops_from_pictures(images: Path, boxes: Path | None, contract: Contract) -> np.ndarray:
    """Up to 8 crops, uint8 [K,3,S,S]: of COCO boxes, or of the middle of each picture if `boxes` is None."""
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
        frame = make_frame(box, width, height, contract.input_size, contract.margin_rate)
        crops.append(read_crop(picture, frame.extended, contract.input_size))
        if len(crops) == MOST_CROPS:
            break
    if not crops:
        raise InputError(f"{images}: no picture could be read for the parity check; leave --parity-images out")
    return _channels_first(crops)


def reference(networks: Mapping[str, MALNetwork], image: np.ndarray, sizes: tuple[SizeClass, ...]) -> ParityReference:
    """PyTorch's FP32 logits of uint8 crops [K,3,S,S] for each size class."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    normalised = (torch.from_numpy(image).float() / 255 - mean) / std
    logits: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for part, network in networks.items():
            features, k = network.encode(normalised)
            grids = [network.config.grid(size) for size in sizes]
            maps = [network.decode(features, k, (grid, grid)).numpy() for grid in grids]
            logits[f"logits_{part}"] = np.stack(maps)
    if len(logits) == 1:
        return ParityReference(image, sizes, {"logits": logits.popitem()[1]})
    mean_logits = (logits["logits_student"] + logits["logits_teacher"]) * np.float32(0.5)
    return ParityReference(image, sizes, {"logits": mean_logits, **logits})


def compare(path: Path, expected: ParityReference) -> Parity:
    """Run a written ONNX file on the crops; RunError above 1e-4 of the logits' range or on NaN."""
    from mal_trt.backends import open_backend

    backend = open_backend(path, device="cpu")
    absolute = relative = 0.0
    try:
        for row, size in enumerate(expected.sizes):
            for name, logits in expected.logits.items():
                weights = name.removeprefix("logits").removeprefix("_") or None
                actual = backend.run(expected.image, size, weights)
                if actual.shape != logits[row].shape:
                    raise RunError(f"the ONNX model gives {actual.shape}, PyTorch {logits[row].shape}")
                difference, span = difference_and_span(actual, logits[row])
                absolute = max(absolute, difference)
                relative = max(relative, difference / span if span else difference)
    finally:
        backend.close()
    if not relative <= TOLERANCE:
        raise RunError(
            f"parity failed: ONNX Runtime is {relative:.1e} of the logits' range away from PyTorch (limit "
            f"{TOLERANCE:.0e}); nothing was written, try another --opset and report the checkpoint's architecture"
        )
    return Parity(absolute, relative)


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
