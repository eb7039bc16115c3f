"""A tiny real ONNX model with the mal_trt metadata, and small data sets to label with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny_model import write_tiny_model

ModelWriter = Callable[..., Path]
DataWriter = Callable[..., tuple[Path, Path]]


@pytest.fixture
def tiny_model(tmp_path: Path) -> ModelWriter:
    """Writes a tiny model into the test's folder and returns its path; see `write_tiny_model`."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return lambda **options: write_tiny_model(tmp_path / "tiny.onnx", **options)


def blob_picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A dark picture, uint8 [H,W,3], with a bright, slightly noisy ellipse in the middle of every 40 pixels."""
    y, x = np.mgrid[:height, :width]
    inside = ((x % 40 - 20) / 14) ** 2 + ((y % 40 - 20) / 10) ** 2 < 1
    noise = np.random.default_rng(seed).integers(0, 30, (height, width, 3))
    return (np.where(inside, 200, 20)[:, :, None] + noise).astype(np.uint8)


@pytest.fixture
def data_set(tmp_path: Path) -> DataWriter:
    """Writes a folder of pictures and a COCO document of boxes around their blobs; returns both paths.

    records: annotations to use instead. Further keywords replace keys of the document (None drops one).
    """

    def write(
        pictures: int = 3,
        size: tuple[int, int] = (120, 80),
        records: list[dict[str, Any]] | None = None,
        **document: Any,
    ) -> tuple[Path, Path]:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        width, height = size
        images = []
        for index in range(pictures):
            name = f"{index + 1:012d}.png"
            Image.fromarray(blob_picture(width, height, index)).save(folder / name)
            images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        if records is None:
            records = blob_records(images)
        whole = {
            "info": {"description": "blobs", "year": 2024},
            "images": images,
            "annotations": records,
            "categories": [{"id": 3, "name": "blob"}],
            **document,
        }
        boxes = tmp_path / "boxes.json"
        boxes.write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))
        return folder, boxes

    return write


def blob_records(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One annotation per blob; every third is a larger box over two of them, so all batches mix pictures."""
    records: list[dict[str, Any]] = []
    for image in images:
        for y in range(0, image["height"] - 39, 40):
            for x in range(0, image["width"] - 39, 40):
                grow = 38 if len(records) % 3 == 2 else 0
                records.append(
                    {
                        "id": 100 + len(records),
                        "image_id": image["id"],
                        "category_id": 3,
                        "bbox": [x + 6, y + 10, 28 + grow, 20 + grow],
                        "score": 0.5,
                        "note": "kept",
                    }
                )
    return records
