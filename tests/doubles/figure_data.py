"""A small data set of drawn figures: pictures of noise with one shape each, whose mask is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal_trt.training.figures import draw_figure

COUNT = 40


def write_figures(folder: Path, side: int) -> list[np.ndarray]:
    """Forty pictures, side x side, in folder/pictures, and their boxes in folder/boxes.json; returns their masks, uint8
    0/1 [side,side]."""
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images, annotations, masks = [], [], []
    for i in range(COUNT):
        picture, mask = draw_figure(lambda r, side: r.integers(0, 255, (side, side, 3)).astype(np.uint8), rng, side)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
        ys, xs = np.nonzero(mask)
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        images.append({"id": i, "file_name": f"{i}.png", "width": side, "height": side})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
        masks.append(mask)
    document: dict[str, Any] = {"images": images, "annotations": annotations}
    document["categories"] = [{"id": 1, "name": "figure"}]
    (folder / "boxes.json").write_text(json.dumps(document))
    return masks
