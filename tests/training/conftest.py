"""What the training tests share: drawn pictures with boxes, and a small run on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from mal_trt.training.config import TrainConfig
from mal_trt.training.figures import draw_figure

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
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images, annotations, masks = [], [], []
    for i in range(40):
        picture, mask = draw_figure(lambda r, side: r.integers(0, 255, (side, side, 3)).astype(np.uint8), rng, SIDE)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
        ys, xs = np.nonzero(mask)
        x, y = int(xs.min()), int(ys.min())
        box = [x, y, int(xs.max()) + 1 - x, int(ys.max()) + 1 - y]
        images.append({"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
        masks.append(mask)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "figure"}]}
    (folder / "boxes.json").write_text(json.dumps(document))
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
