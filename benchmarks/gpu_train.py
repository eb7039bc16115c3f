"""More training of the bundled model on a GPU, for as long as there is time.

    python benchmarks/gpu_train.py --data PACKED --out OUT --minutes 8
    python benchmarks/gpu_train.py --data PACKED --out OUT256 --from OUT/last.pth --crop-size 256 --minutes 6

The last stage of export/bundled.py, with a batch and workers for a GPU. A short run first measures boxes/s, the run
proper is as long as fits into the minutes; killed, the same command goes on with it. PACKED is pack_data.py's folder.
OUT gets last.pth, its logs, speed.json and the model, mal_tiny.onnx, with the threshold that its boxes choose.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import replace
from pathlib import Path

import torch
from common import save
from rich.console import Console

from mal_trt.export.bundled import export_bundled, sources, stages
from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.data import Samples
from mal_trt.training.loop import CHECKPOINT, sample_rules, train
from mal_trt.training.pictures import read_training_boxes

# Of the first run. Its log has three rows: the first ones hold compiling and filling the loader, the last one counts.
SPEED_STEPS = 60


def for_gpu(config: TrainConfig, batch: int, workers: int) -> TrainConfig:
    """The same stage in larger steps: the optimiser's rate by the square root, the teacher's pace by the samples."""
    grown = batch / config.batch
    return replace(
        config,
        batch=batch,
        lr=config.lr / grown**0.5,
        teacher_momentum=config.teacher_momentum**grown,
        min_area=0.0,  # pack_data.py has chosen already
        workers=workers,
        cudnn_benchmark=True,
        cudnn_deterministic=False,
        checkpoint_minutes=2.0,
        resume=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", type=Path, default=Path("bundled"), dest="start")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--crop-size", type=int, default=192)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    args = parser.parse_args()
    console = Console(stderr=True)
    images, boxes = sources(args.data)
    stage = replace(stages(images, boxes, args.out)[-1], out=args.out, start_from=args.start, crop_size=args.crop_size)
    stage = for_gpu(stage, args.batch, args.workers)
    rows = read_training_boxes(images, boxes, stage.min_area, stage.max_area)
    epoch = Samples(rows, sample_rules(stage), 0, 0).epoch_length // stage.batch * stage.batch
    last = args.out / CHECKPOINT
    if last.exists():
        epochs = float(read_checkpoint(last).meta["run"]["epochs"])
    else:
        speed = args.out / "speed"
        train(replace(stage, out=speed, epochs=SPEED_STEPS * stage.batch / epoch, log_steps=SPEED_STEPS // 3), console)
        rate = float(list(csv.DictReader((speed / "log.csv").open()))[-1]["boxes_per_s"])
        epochs = round(rate * args.minutes * 60 / epoch, 3)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        save(args.out / "speed.json", {"gpu": gpu, "boxes_per_s": rate, "batch": stage.batch, "epochs": epochs})
    checkpoint = train(replace(stage, epochs=epochs), console)
    export_bundled(checkpoint, args.out / "mal_tiny.onnx", rows, console)


if __name__ == "__main__":
    main()
