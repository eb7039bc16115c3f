"""What `label --decode scaled` gains, and costs, on photos of 24 megapixels with one large box each.

    python benchmarks/large_photos.py --images DIR|TAR --boxes val.json [--count 24] [--rounds 3] [--json FILE]

Photos of that size with drawn masks are rare, so those of a data set are enlarged (bicubic), with grain as a sensor
adds it (sigma 4), which makes a JPEG as large as a camera's. Each keeps its largest box. `label` runs exact and scaled
in turn; the median of the pairs' ratios counts. The IoU is that of the two runs' masks, mIoU that with the drawn ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from common import save
from PIL import Image
from pycocotools import mask as coco

from mal_trt import evaluate
from mal_trt.formats.images import open_images
from mal_trt.formats.jpeg import read_jpeg
from mal_trt.formats.pixels import open_picture
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.rescale import scaled_record
from mal_trt.geometry.rle import resized_rle
from mal_trt.labelling.run import label

GRAIN = 4.0


def enlarge(images: Path, boxes: Path, count: int, pixels: float, folder: Path) -> Path:
    """Write `count` enlarged photos and a document with the largest box of each; its path."""
    document = json.loads(boxes.read_text())
    source, rng = open_images(images), np.random.default_rng(0)
    largest: dict[Any, dict[str, Any]] = {}
    for record in document["annotations"]:
        before = largest.get(record["image_id"])
        if before is None or record["bbox"][2] * record["bbox"][3] > before["bbox"][2] * before["bbox"][3]:
            largest[record["image_id"]] = record
    made: dict[str, Any] = {**document, "images": [], "annotations": []}
    for entry in document["images"]:
        if len(made["images"]) == count:
            break
        if entry["id"] not in largest:
            continue
        photo = Image.fromarray(source.load(entry["file_name"], (entry["width"], entry["height"])))
        factor = (pixels / (photo.width * photo.height)) ** 0.5
        width, height = round(photo.width * factor), round(photo.height * factor)
        large = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
        large += rng.normal(0, GRAIN, large.shape[:2]).astype(np.float32)[:, :, None]
        name = f"{len(made['images']):04d}.jpg"
        Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(folder / name, quality=92)
        record = largest[entry["id"]]
        scaled = scaled_record(record, width / photo.width, height / photo.height)
        if "segmentation" in record:
            drawn = to_rle(record["segmentation"], photo.height, photo.width)
            scaled["segmentation"] = resized_rle(drawn, height, width)
        made["images"].append({**entry, "file_name": name, "width": width, "height": height})
        made["annotations"].append(scaled)
    path = folder / "boxes.json"
    path.write_text(json.dumps(made))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True, help="COCO; with drawn masks for the mIoU")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=24, help="photos")
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    speeds: dict[str, list[float]] = {"cpu": [], "scaled": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        boxes = enlarge(arguments.images, arguments.boxes, arguments.count, arguments.megapixels * 1e6, folder)
        with open(folder / "0000.jpg", "rb") as file:
            fast = read_jpeg(file, open_picture(file)) is not None
        for turn in range(arguments.rounds):
            for decode, found in speeds.items():
                out = folder / f"{decode}-{turn}.json"
                summary = label(folder, boxes, arguments.model, out, device="cpu", decode=decode, progress=False)
                found.append(summary.labelled / summary.seconds)
        exact, scaled = ({a["id"]: a for a in _records(folder / f"{decode}-0.json")} for decode in speeds)
        same = [coco.iou([exact[key]["segmentation"]], [scaled[key]["segmentation"]], [0])[0][0] for key in exact]
        drawn = "segmentation" in _records(boxes)[0]
        scores = {d: evaluate(None, boxes, labels=folder / f"{d}-0.json")["miou"] for d in speeds} if drawn else {}
    ratio = median(s / e for s, e in zip(speeds["scaled"], speeds["cpu"], strict=True))
    figures = {
        "photos": len(same),
        "megapixels": arguments.megapixels,
        "simplejpeg": fast,
        "exact_boxes_per_s": [round(v, 2) for v in speeds["cpu"]],
        "scaled_boxes_per_s": [round(v, 2) for v in speeds["scaled"]],
        "ratio": round(ratio, 2),
        "iou_mean": round(mean(same), 4),
        "iou_least": round(min(same), 4),
        **{f"miou_{decode}": round(score, 4) for decode, score in scores.items()},
    }
    print(json.dumps(figures, indent=1))
    save(arguments.json, figures)


def _records(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["annotations"]
    return found


if __name__ == "__main__":
    main()
