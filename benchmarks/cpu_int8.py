"""Masks and speed of INT8 files for processors beside the FP32 model they were made from, on the same crops.

    python benchmarks/cpu_int8.py --data DATA --file NAME=FILE ... [--model bundled] [--count 300]
        [--batch 1 8 32] [--rounds 5] [--threads 2] [--sets coco ...] [--json FILE]

DATA holds a folder for each set with images-00.tar and val.json. Masks: `count` boxes of each set, as many small,
medium and large ones as there are; mIoU and boundary IoU over classes, and the mean IoU with the FP32 model's masks.
Speed: the network alone on 64 of the first set's crops, the models in turn, the best of the rounds; crops for each
second of the clock, and for each second that processors worked, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import save

from mal_trt.calibration.gate import truth
from mal_trt.calibration.sample import CropBatch, crops, draw
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.predictor import Predictor
from mal_trt.measure.metrics import mask_iou, score_object, summarize

SETS = ("coco", "coco_person", "sysu_shape", "caltech", "tile_defects")
CROPS = 64


def batches_of(data: Path, name: str, count: int, predictor: Predictor) -> list[CropBatch]:
    spots = [s for s in draw([(data / name / "images-00.tar", data / name / "val.json")], count) if s.truth]
    return list(crops(spots, predictor.contract, 8))


def masks(predictor: Predictor, batches: list[CropBatch]) -> list[RLE]:
    found = []
    for batch in batches:
        logits = predictor.run(batch.image, batch.size, batch.frames)
        found += [mask.rle for mask in predictor.masks(logits, batch.frames)]
    return found


def quality(models: dict[str, Predictor], batches: list[CropBatch]) -> dict[str, dict[str, Any]]:
    truths = [truth(spot) for batch in batches for spot in batch.spots]
    reference: list[RLE] = []
    rows = {}
    for name, predictor in models.items():
        found = masks(predictor, batches)
        reference = reference or found
        pairs = [(one, drawn) for one, drawn in zip(found, truths, strict=True) if drawn is not None]
        figures = summarize([score_object(one, drawn.rle, drawn.category_id, drawn.area) for one, drawn in pairs], {})
        iou = mean(mask_iou(one, other) for one, other in zip(found, reference, strict=True))
        rows[name] = {key: figures[key] for key in ("miou", "miou_instance", "boundary_iou", "count")} | {"iou": iou}
    return rows


def speed(models: dict[str, Predictor], image: np.ndarray, size: Any, batch: int, rounds: int) -> list[dict[str, Any]]:
    best = {name: [float("inf"), float("inf")] for name in models}
    for _ in range(rounds):
        for name, predictor in models.items():
            clock, work = time.perf_counter(), time.process_time()
            for start in range(0, len(image), batch):
                predictor.backend.run(image[start : start + batch], size)
            spent = time.perf_counter() - clock, time.process_time() - work
            best[name] = [min(pair) for pair in zip(best[name], spent, strict=True)]
    return [
        {
            "model": name,
            "batch": batch,
            "crops_per_s": round(len(image) / clock, 1),
            "crops_per_processor_s": round(len(image) / work, 1),
        }
        for name, (clock, work) in best.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--file", nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--count", type=int, default=300, help="boxes of each set; 0: speed alone")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5, help="0: masks alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    given = {"fp32": arguments.model} | dict(text.split("=", 1) for text in arguments.file)
    models = {
        name: Predictor(path, "cpu", threads=arguments.threads, backend="onnxruntime") for name, path in given.items()
    }
    rows = []
    if arguments.rounds:
        found = batches_of(arguments.data, arguments.sets[0], 2 * CROPS, models["fp32"])
        image = np.concatenate([batch.image for batch in found])[:CROPS]
        for batch in arguments.batch:
            rows += speed(models, image, found[-1].size, batch, arguments.rounds)
            for row in rows[-len(models) :]:
                print(json.dumps(row), flush=True)
    sets = {}
    for name in arguments.sets if arguments.count else ():
        sets[name] = quality(models, batches_of(arguments.data, name, arguments.count, models["fp32"]))
        for label, row in sets[name].items():
            print(name, label, json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
    sizes = {name: Path(path).stat().st_size for name, path in given.items() if Path(path).is_file()}
    save(arguments.json, {"threads": arguments.threads, "bytes": sizes, "speed": rows, "sets": sets})


if __name__ == "__main__":
    main()
