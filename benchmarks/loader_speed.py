"""Boxes per second of training's loader alone: decode, crop, augment, collate; no network.

    python benchmarks/loader_speed.py --images images-00.tar --boxes train_boxes.json --together 4 --workers 2

Each variant named on the command line is timed in turn, `--rounds` times; the best round counts, since other work
on the machine only slows it. Workers are started before the clock. Without workers boxes per second of CPU time are
given too.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

from common import save
from torch.utils.data import DataLoader

from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.pictures import Order, read_training_boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400, help="boxes a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop-size", type=int, default=512)
    parser.add_argument("--min-area", type=float, default=2048.0)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 4], help="boxes of a picture in a row")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preload", action="store_true", help="also with the decoded pictures in memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    boxes = read_training_boxes((arguments.images,), (arguments.boxes,), arguments.min_area, 1e10)
    variants = list(itertools.product([False, True] if arguments.preload else [False], arguments.together))
    rates: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        for (preload, together), workers in itertools.product(variants, arguments.workers):
            name = f"together {together}, {workers} workers" + (", preloaded" if preload else "")
            rules = SampleRules(arguments.crop_size, number, order=Order(together=together))
            # One batch more for each worker, which starts them all.
            spare = arguments.batch * max(1, workers)
            samples = Samples(boxes, rules, 0, arguments.count + spare, preload=preload)
            loader = iter(DataLoader(samples, arguments.batch, num_workers=workers, drop_last=True))
            for _ in range(max(1, workers)):
                next(loader)
            started, busy, done = time.perf_counter(), time.process_time(), 0
            for batch in loader:
                done += len(batch["area"])
            rates.setdefault(name, []).append(done / (time.perf_counter() - started))
            if not workers:
                rates.setdefault(f"{name}, of CPU time", []).append(done / (time.process_time() - busy))
            print(f"{name}: {rates[name][-1]:.0f} boxes/s")
    best = {name: round(max(values), 1) for name, values in rates.items()}
    print("best:", ", ".join(f"{name} {value:.0f}" for name, value in best.items()))
    save(
        arguments.json,
        {
            "boxes_in_set": len(boxes),
            "pictures_in_set": len(boxes.pictures),
            "boxes_timed": arguments.count,
            "crop_size": arguments.crop_size,
            "batch": arguments.batch,
            "boxes_per_s": {name: [round(v, 1) for v in values] for name, values in rates.items()},
            "best": best,
        },
    )


if __name__ == "__main__":
    main()
