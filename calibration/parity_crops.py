"""The parity file beside a converted model: made for it, or read as crops to check it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.parity_file import LOGITS, ParityCrops, parity_bytes, parity_path, read_parity
from mal_trt.backends import open_backend
from mal_trt.base.errors import InputError
from mal_trt.calibration.sample import CropBatch, Spot
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame

PARITY_CROPS = 4


def parity_of(source: Path, contract: Contract, batches: list[CropBatch]) -> bytes:
    """Contents of the parity file that a model made from `source` gets: its own, or made of the first crops."""
    if parity_path(source).is_file():
        return parity_path(source).read_bytes()
    classes = tuple(SizeClass) if contract.head == "dynamic" else (SizeClass.MEDIUM,)
    parts = []
    backend = open_backend(source, device="cpu", backend="onnxruntime")
    try:
        for sizes in [(size,) for size in SizeClass] if contract.sizes else [classes]:
            image = _first_crops(batches, contract, sizes[0])
            logits = np.stack([backend.run(image, size) for size in sizes])
            parts.append(ParityCrops(image, sizes, {LOGITS: logits}))
    finally:
        backend.close()
    return parity_bytes(parts)


def _first_crops(batches: list[CropBatch], contract: Contract, size: SizeClass) -> np.ndarray:
    """A few crops of the side that a size class takes, [n,3,S,S]; grey ones where there are none."""
    side = contract.side(size)
    found = [batch.image for batch in batches if batch.image.shape[-1] == side]
    return np.concatenate(found or [np.full((1, 3, side, side), 128, contract.input_dtype)])[:PARITY_CROPS]


def parity_batches(source: Path, contract: Contract) -> list[CropBatch]:
    """The crops of the parity file beside a model, once for each size class the model tells apart.

    Each crop counts as a picture of its own whose box is all of it. InputError if there is no such file.
    """
    path = parity_path(source)
    try:
        parts = read_parity(path)
    except InputError:
        raise InputError(f"{path}: no parity crops to check on; give pictures and boxes of your own") from None
    batches = []
    for part in parts:
        for size in part.sizes:
            side = contract.side(size)
            box = (0.0, 0.0, float(side), float(side))
            frame = make_frame(box, side, side, side, 0.0)
            spots = tuple(Spot(path, str(i), side, side, box, size, {}) for i in range(len(part.image)))
            batches.append(CropBatch(size, part.image.astype(contract.input_dtype), (frame,) * len(spots), spots))
    return batches
