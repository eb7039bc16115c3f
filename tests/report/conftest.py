"""Labels with hostile names, and the pictures for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from report_pages import NAMES


@pytest.fixture
def labels(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes labels.json with rectangles of growing score in pictures of 64 x 48, and the pictures; their paths."""

    def write(count: int = 9, per_picture: int = 3) -> tuple[Path, Path]:
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        images, annotations = [], []
        rng = np.random.default_rng(1)
        for number in range(-(-count // per_picture)):
            name = f"{number} <b>'&.png"
            Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(folder / name)
            images.append({"id": number, "file_name": name, "width": 64, "height": 48})
        for number in range(count):
            side = 6 + number % 20
            rle = encode_rle(LocalMask(4, 4, np.ones((side, side), bool)), 48, 64)
            score = round(1 - number / count / 2, 4)
            annotations.append(
                {
                    "id": f"<i>{number}",
                    "image_id": number // per_picture,
                    "category_id": number % len(NAMES),
                    "bbox": [4, 4, 30, 30],
                    "segmentation": rle,
                    "quality": {"score": score, "box_share": side**2 / 900, "edges": 2, "parts": 1},
                }
            )
        categories = [{"id": n, "name": name} for n, name in enumerate(NAMES)]
        path = tmp_path / "labels.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return path, folder

    return write
