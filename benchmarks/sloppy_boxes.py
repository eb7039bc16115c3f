"""What boxes that are off cost: mean IoU when each side is moved by up to so much of the box, with `--slack`, and with
`--second-pass`.

    python benchmarks/sloppy_boxes.py --images DIR|TAR --boxes val.json [--model M] [--slack 0 0.05] [--second-pass]
        [--backend onnxruntime] [--json FILE]

Each side of a box moves by its own share, even between minus and plus the given one; "larger" and "smaller" move all
four sides outwards or inwards by it. Boxes are clipped to their pictures. The drawn masks stay as they are; "reach" is
the share of their area that lies in such boxes, grown by the slack: no mask that stays in them can have more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from pycocotools import mask

from mal_trt import evaluate
from mal_trt.formats.segmentations import to_rle

CASES = {"exact": (0.0, 0.0), "off by 5 %": (-0.05, 0.05), "off by 10 %": (-0.1, 0.1), "off by 20 %": (-0.2, 0.2)}
CASES |= {"10 % larger": (0.1, 0.1), "25 % larger": (0.25, 0.25), "10 % smaller": (-0.1, -0.1)}


def moved(document: dict[str, Any], outwards: tuple[float, float], seed: int = 0) -> dict[str, Any]:
    """The document with its boxes' sides moved outwards by shares of the box drawn from a range."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    annotations = []
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        left, top, right, bottom = rng.uniform(*outwards, 4)
        width, height = sizes[record["image_id"]]
        x0, y0 = max(0.0, x - left * w), max(0.0, y - top * h)
        x1, y1 = min(width, x + w + right * w), min(height, y + h + bottom * h)
        annotations.append({**record, "bbox": [x0, y0, max(1.0, x1 - x0), max(1.0, y1 - y0)]})
    return {**document, "annotations": annotations}


def reach(document: dict[str, Any], drawn: dict[str, Any], slack: float) -> float:
    """Share of the drawn masks' area that the document's boxes, grown on each side by a share of theirs, hold; the mean
    over objects, then over classes."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    by_class = defaultdict(list)
    for record, truth in zip(document["annotations"], drawn["annotations"], strict=True):
        width, height = sizes[record["image_id"]]
        rle = to_rle(truth["segmentation"], height, width)
        x, y, w, h = record["bbox"]
        own = (
            max(0.0, x - slack * w),
            max(0.0, y - slack * h),
            min(width, x + w + slack * w),
            min(height, y + h + slack * h),
        )
        x0, y0, x1, y1 = (round(side) for side in own)
        by_class[record["category_id"]].append(mask.decode(rle)[y0:y1, x0:x1].sum() / max(1, mask.area(rle)))
    return float(np.mean([np.mean(shares) for shares in by_class.values()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True, help="a COCO document with drawn masks")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--slack", type=float, nargs="+", default=[0.0])
    parser.add_argument("--second-pass", action="store_true", help="also in two passes, without slack")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document = json.loads(arguments.boxes.read_text())
    ways: dict[str, dict[str, Any]] = {f", slack {s:g}" if s else "": {"slack": s} for s in arguments.slack}
    if arguments.second_pass:
        ways[", second pass"] = {"second_pass": True}
    given: dict[str, Any] = {"model": arguments.model, "device": "cpu", "backend": arguments.backend, "progress": False}
    rows = {}
    for case, outwards in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "boxes.json"
            off = moved(document, outwards)
            path.write_text(json.dumps(off))
            for way, options in ways.items():
                found = evaluate(arguments.images, path, **given, **options)
                name = case + way
                rows[name] = {key: round(found[key], 4) for key in ("miou", "miou_instance", "boundary_iou")}
                rows[name]["reach"] = round(reach(off, document, options.get("slack", 0.0)), 4)
                print(name, rows[name], flush=True)
    save(arguments.json, {"model": str(arguments.model), "boxes": len(document["annotations"]), "cases": rows})


if __name__ == "__main__":
    main()
