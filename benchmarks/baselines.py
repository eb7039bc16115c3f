"""Three baselines on the same boxes the model gets: the box itself, its inscribed ellipse, OpenCV's GrabCut.

    python benchmarks/baselines.py --data DIR [--sets coco caltech ...] [--json FILE]

DIR holds one folder per set with val.json (COCO, boxes and masks) and images-00.tar. Scored as
`mal-trt evaluate` scores a model. GrabCut: 5 iterations from the box as its rectangle, on MAL's test crop
(cut at the picture's border instead of wrapped), long side at most 320 pixels; an empty result counts as the
box.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import Box, boxes_by_picture, save

from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.boxes import TEST_MARGIN_RATE, extended_box
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.measure.metrics import ObjectScore, score_object, summarize

LONG_SIDE = 320
ITERATIONS = 5


def pixels(box: Box) -> tuple[int, int, int, int]:
    """Whole pixels an XYXY box touches, half-open."""
    return math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])


def box_mask(picture: np.ndarray, box: Box) -> LocalMask:
    """Every pixel of the box."""
    x0, y0, x1, y1 = pixels(box)
    return LocalMask(x0, y0, np.ones((y1 - y0, x1 - x0), bool))


def ellipse_mask(picture: np.ndarray, box: Box) -> LocalMask:
    """Pixels whose centre lies in the ellipse that touches the box's four sides."""
    x0, y0, x1, y1 = pixels(box)
    dx = (np.arange(x0, x1) + 0.5 - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    dy = (np.arange(y0, y1) + 0.5 - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    return LocalMask(x0, y0, dx[None] ** 2 + dy[:, None] ** 2 <= 1)


def grabcut_mask(picture: np.ndarray, box: Box) -> LocalMask:
    """GrabCut's foreground inside the box; the whole box if there is none, or no background to learn from."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = pixels(box)
    left, top, right, bottom = extended_box(box, (TEST_MARGIN_RATE / 2,) * 4)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    crop = picture[top:bottom, left:right]
    scale = min(1.0, LONG_SIDE / max(crop.shape[:2]))
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else crop
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    fx, fy = small.shape[1] / crop.shape[1], small.shape[0] / crop.shape[0]
    rows = slice(round((y0 - top) * fy), max(round((y1 - top) * fy), round((y0 - top) * fy) + 1))
    columns = slice(round((x0 - left) * fx), max(round((x1 - left) * fx), round((x0 - left) * fx) + 1))
    labels[rows, columns] = cv2.GC_PR_FGD
    if not (labels == cv2.GC_BGD).any():
        return box_mask(picture, box)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(np.ascontiguousarray(small), labels, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # too few pixels for the colour models
        return box_mask(picture, box)
    found = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    full = cv2.resize(found, (crop.shape[1], crop.shape[0]), interpolation=cv2.INTER_NEAREST)
    mask = full[y0 - top : y1 - top, x0 - left : x1 - left].astype(bool)
    return LocalMask(x0, y0, mask) if mask.any() else box_mask(picture, box)


BASELINES: dict[str, Callable[[np.ndarray, Box], LocalMask]] = {
    "box": box_mask,
    "ellipse": ellipse_mask,
    "grabcut": grabcut_mask,
}


def score_set(folder: Path) -> dict[str, Any]:
    """Every baseline's figures on one set, plus the objects scored and the seconds each baseline took."""
    scores: dict[str, list[ObjectScore]] = {name: [] for name in BASELINES}
    seconds = dict.fromkeys(BASELINES, 0.0)
    for _, picture, found in boxes_by_picture(folder / "images-00.tar", folder / "val.json"):
        height, width = picture.shape[:2]
        for annotation, box in found:
            truth = to_rle(annotation["segmentation"], height, width)
            _, _, w, h = annotation["bbox"]
            for name, make in BASELINES.items():
                started = time.perf_counter()
                mask = make(picture, box)
                seconds[name] += time.perf_counter() - started
                rle = encode_rle(mask, height, width)
                scores[name].append(score_object(rle, truth, annotation["category_id"], w * h))
    document = json.loads((folder / "val.json").read_text())
    names = {c["id"]: c["name"] for c in document["categories"]}
    result = {}
    for name, values in scores.items():
        figures = summarize(values, names)
        figures.pop("per_class")
        result[name] = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        result[name]["seconds"] = round(seconds[name], 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder per set")
    parser.add_argument("--sets", nargs="+", help="sets to score; default: all")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    sets = arguments.sets or sorted(p.parent.name for p in arguments.data.glob("*/val.json"))
    if not sets:
        sys.exit(f"error: {arguments.data}: no folder with a val.json in it")
    results: dict[str, Any] = {}
    print(f"{'set':14}{'objects':>8}" + "".join(f"{name:>10}" for name in BASELINES) + "   (class-mean mIoU)")
    for name in sets:
        results[name] = score_set(arguments.data / name)
        row = "".join(f"{results[name][baseline]['miou']:10.3f}" for baseline in BASELINES)
        print(f"{name:14}{results[name]['box']['count']:8d}{row}", flush=True)
    settings = {"opencv": cv2.__version__, "long_side": LONG_SIDE, "iterations": ITERATIONS}
    save(arguments.json, {**settings, "sets": results})


if __name__ == "__main__":
    main()
