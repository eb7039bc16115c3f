"""Crops for other tools' calibrators: the boxes that `mal-trt calibrate` draws, cut by the package's own pipeline.

    python benchmarks/calibration_crops.py --model bundled --data DIR [--sets coco ...] [--count 560] --out crops.npz

DIR holds one folder per set with train_boxes.json (COCO, boxes) and images-00.tar. The file holds `image`, uint8
[N,3,S,S] RGB, small, medium and large boxes in turn, so that the first N of it are a fair sample too.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from mal_trt.backends import open_backend
from mal_trt.calibration.sample import crops, draw
from mal_trt.geometry.boxes import SizeClass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", help="whose crop size and margins to use")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", help="default: all")
    parser.add_argument("--count", type=int, default=560)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sets = arguments.sets or sorted(p.parent.name for p in arguments.data.glob("*/train_boxes.json"))
    if not sets:
        sys.exit(f"error: {arguments.data}: no folder with a train_boxes.json in it")
    contract = open_backend(arguments.model, "cpu", 1).contract
    sources = [(arguments.data / name / "images-00.tar", arguments.data / name / "train_boxes.json") for name in sets]
    by_size: dict[SizeClass, list[np.ndarray]] = {size: [] for size in SizeClass}
    drawn: Counter[str] = Counter()
    for group in crops(draw(sources, arguments.count), contract, 16, skip_blank=True):
        by_size[group.size].extend(group.image)
        drawn.update(Path(spot.images).parent.name for spot in group.spots)
    # Pictures come sorted; shuffled, the first few of a class are from all sets.
    order = np.random.default_rng(0)
    for images in by_size.values():
        order.shuffle(images)  # type: ignore[arg-type]
    mixed = [image for image in chain.from_iterable(zip_longest(*by_size.values())) if image is not None]
    np.savez(arguments.out, image=np.stack(mixed))
    print(f"{arguments.out}: {len(mixed)} crops of {contract.input_size} px;", dict(drawn))
    print({size.name.lower(): len(images) for size, images in by_size.items()})


if __name__ == "__main__":
    main()
