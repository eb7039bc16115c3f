"""Labels made on the GPU beside the CPU's: IoU of each mask, and how many are the same to the byte.

python benchmarks/gpu/parity.py --model bundled [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import os
from importlib import resources
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

from mal_trt import label

WORK = Path(os.environ.get("WORK", "/tmp/gpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    examples = Path(str(resources.files("mal_trt.examples")))
    found = {}
    rows = []
    variants = [("cpu", "cpu", "auto"), ("crops on the GPU", arguments.device, "auto")]
    variants.append(("crops on the CPU", arguments.device, "cpu"))
    for flip in (False, True):
        for name, device, crops in variants:
            out = WORK / f"labels-{device}-{crops}-{flip}.out"
            out.unlink(missing_ok=True)
            options = {"device": device, "crops": crops, "flip": flip, "progress": False}
            label(examples / "photos", examples / "boxes.json", arguments.model, out, **options)
            found[name] = [a["segmentation"] for a in json.loads(out.read_text())["annotations"]]
        for name, _, _ in variants[1:]:
            pairs = list(zip(found["cpu"], found[name], strict=True))
            ious = [float(coco.iou([a], [b], [0])[0, 0]) for a, b in pairs]
            same = sum(a == b for a, b in pairs)
            row = {"flip": flip, "masks": name, "objects": len(pairs), "same_bytes": same}
            rows.append({**row, "least_iou": min(ious), "mean_iou": float(np.mean(ious))})
            print(rows[-1], flush=True)
            (WORK / "ort_parity.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
