"""Shapes to build for: one profile for each size of box, with a batch that fits the memory."""

from __future__ import annotations

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.manifest import Profile
from mal_trt.geometry.boxes import SizeClass

BATCHES = (32, 16, 8, 4, 2, 1)
# Allowance for one crop, not a measurement: attention scores and mask head of a ViT-Base at 512 pixels in FP32.
CROP_BYTES = 256 << 20
SHARE = 0.5  # of the free memory; weights, decoded pictures and other programs take the rest


def default_batch(contract: Contract, free_bytes: int | None) -> tuple[int, int, int]:
    """Smallest, best and largest batch: 1, 16, 32, or less where the GPU's free memory is short or known to be."""
    each = CROP_BYTES * (contract.input_size / 512) ** 2 / (1 if contract.precision == "fp32" else 2)
    room = BATCHES[0] if free_bytes is None else free_bytes * SHARE / each
    largest = next((n for n in BATCHES if n <= room), 1)
    return 1, max(1, largest // 2), largest


def profiles(contract: Contract, batch: tuple[int, int, int]) -> tuple[Profile, ...]:
    """One profile for small, medium and large boxes each; where the mask head's grid is fixed, one for each side of
    crops."""
    if contract.head != "dynamic":
        return tuple(Profile(batch, side=side if contract.sizes else None) for side in contract.sides)
    return tuple(
        Profile(batch, contract.grid(size), contract.side(size) if contract.sizes else None) for size in SizeClass
    )
