"""The training data of DATA in a few dozen MB, to be sent to a borrowed machine.

    python benchmarks/pack_data.py --data DATA --out PACKED

DATA holds one folder a data set, each with images-00.tar and train_boxes.json. PACKED gets the same layout: pictures
with boxes of more than `--min-area` square pixels only, as WebP with the long side cut to `--side`, boxes in the new
pixels. Masks never travel.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal_trt.formats.images import ImageSource, open_images


def pack(source: Path, out: Path, side: int, quality: int, min_area: float) -> int:
    """One data set; bytes written."""
    document = json.loads((source / "train_boxes.json").read_text())
    images = open_images(source / "images-00.tar")
    wanted: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        if annotation["bbox"][2] * annotation["bbox"][3] > min_area:
            wanted.setdefault(annotation["image_id"], []).append(annotation)
    out.mkdir(parents=True, exist_ok=True)
    records, annotations = [], []
    with tarfile.open(out / "images-00.tar", "w") as tar:
        for record in document["images"]:
            if record["id"] not in wanted:
                continue
            name = str(Path(record["file_name"]).with_suffix(".webp"))
            width, height = _add(tar, name, images, record["file_name"], side, quality)
            scale = np.tile((width / record["width"], height / record["height"]), 2)
            records.append({**record, "file_name": name, "width": width, "height": height})
            for annotation in wanted[record["id"]]:
                x, y, w, h = np.round(np.array(annotation["bbox"]) * scale, 3).tolist()
                # A rounded sum must not leave the picture: such boxes are not trained on.
                box = [x, y, min(w, width - x), min(h, height - y)]
                annotations.append({**annotation, "bbox": box, "area": box[2] * box[3]})
    packed = {"images": records, "annotations": annotations, "categories": document["categories"]}
    (out / "train_boxes.json").write_text(json.dumps(packed))
    return sum(path.stat().st_size for path in out.iterdir())


def _add(tar: tarfile.TarFile, name: str, images: ImageSource, old: str, side: int, quality: int) -> tuple[int, int]:
    """Add a picture to the tar; its new (width, height)."""
    picture = Image.fromarray(images.load(old))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=4)
    info = tarfile.TarInfo(f"images/{name}")
    info.size = file.tell()
    file.seek(0)
    tar.addfile(info, file)
    return picture.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", type=int, default=320, help="longest side, pixels")
    parser.add_argument("--quality", type=int, default=75, help="of WebP")
    parser.add_argument("--min-area", type=float, default=256.0, help="boxes of more square pixels, as found, count")
    args = parser.parse_args()
    for document in sorted(args.data.glob("*/train_boxes.json")):
        source = document.parent
        size = pack(source, args.out / source.name, args.side, args.quality, args.min_area)
        print(f"{source.name}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
