"""Does the quality score rank masks? Its Spearman correlation with the true IoU, over the objects of a data set.

python benchmarks/quality_rank.py --images DIR|TAR --boxes val.json [--model M] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from common import save
from pycocotools import mask as coco

from mal_trt import label
from mal_trt.formats.segmentations import to_rle


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, float64 [n]; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True, help="a COCO document with drawn masks")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.json"
        label(arguments.images, arguments.boxes, arguments.model, out, device="cpu", progress=False)
        labels = {record["id"]: record for record in json.loads(out.read_text())["annotations"]}
    document = json.loads(arguments.boxes.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    rows = []
    for record in document["annotations"]:
        if record["id"] in labels and record.get("segmentation"):
            found = labels[record["id"]]
            true = to_rle(record["segmentation"], *sizes[record["image_id"]])
            rows.append((found["quality"]["score"], coco.iou([found["segmentation"]], [true], [0])[0][0]))
    scores, overlaps = np.array(rows).T
    spearman = float(np.corrcoef(ranks(scores), ranks(overlaps))[0, 1])
    worst = scores <= np.quantile(scores, 0.1)
    figures = {
        "objects": len(rows),
        "spearman": round(spearman, 4),
        "miou": round(float(overlaps.mean()), 4),
        "miou_of_the_lowest_tenth": round(float(overlaps[worst].mean()), 4),
    }
    print(figures)
    save(arguments.json, {"model": str(arguments.model), **figures})


if __name__ == "__main__":
    main()
