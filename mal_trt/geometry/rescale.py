"""Boxes of a picture that was resized later: whether by one factor, and the boxes in the new pixels."""

from __future__ import annotations

from typing import Any


def one_factor(said: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a picture of (width, height) `said`, resized by one factor and rounded, may have come to `size`."""
    (w, h), (width, height) = said, size
    return max((width - 1) / w, (height - 1) / h) < min((width + 1) / w, (height + 1) / h)


def scaled_record(record: dict[str, Any], fx: float, fy: float) -> dict[str, Any]:
    """An annotation of a picture that is now fx times as wide and fy times as high; run lengths are dropped."""
    x, y, w, h = (float(v) for v in record["bbox"])
    scaled = {**record, "bbox": [x * fx, y * fy, w * fx, h * fy]}
    if isinstance(record.get("area"), (int, float)):
        scaled["area"] = record["area"] * fx * fy
    parts = record.get("segmentation")
    if isinstance(parts, dict):
        del scaled["segmentation"]
    elif isinstance(parts, list) and all(isinstance(part, list) for part in parts):
        scaled["segmentation"] = [[v * (fx, fy)[place % 2] for place, v in enumerate(part)] for part in parts]
    return scaled
