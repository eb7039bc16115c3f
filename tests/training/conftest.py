"""What the training tests share: drawn pictures with boxes, and a small run on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from figure_data import write_figures
from mal_trt.training.config import TrainConfig

SIDE = 112


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: two threads would mostly wait for each other. And the same sums on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty drawn pictures: pictures/, boxes.json, val.json (with masks) and masks.npy."""
    folder = tmp_path_factory.mktemp("drawn")
    masks = write_figures(folder, SIDE)
    document = json.loads((folder / "boxes.json").read_text())
    annotations = document["annotations"]
    document["annotations"] = [
        {**a, "segmentation": uncompressed(m)} for a, m in zip(annotations[:10], masks[:10], strict=True)
    ]
    (folder / "val.json").write_text(json.dumps(document))
    np.save(folder / "masks.npy", np.stack(masks))
    return folder


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a 0/1 mask, as a list."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=0))
    return {"size": list(mask.shape), "counts": np.diff([0, *edges, flat.size]).tolist()}


@pytest.fixture
def plan(drawn: Path, tmp_path: Path) -> TrainConfig:
    """A run of ten steps of four boxes on a very small network."""
    return TrainConfig(
        images=(drawn / "pictures",),
        boxes=(drawn / "boxes.json",),
        out=tmp_path / "run",
        arch="vit-mal-tiny/16",
        layout="hybrid",
        depth=1,
        head_width=16,
        crop_size=64,
        adjust_scale=False,
        batch=4,
        epochs=1.0,
        min_area=100,
        device="cpu",
        workers=0,
        crf_iterations=5,
        picture_steps=0,
    )
