"""Boxes per second of `label` against the same weights in eager PyTorch, on the CPU.

    python benchmarks/eager_speed.py --checkpoint last.pth --model model.onnx --images DIR --boxes boxes.json

The eager run does what a plain script does: one box after the other is cropped, run through the PyTorch
network (`--eager-batch` at once, default 1) and turned into its run lengths. `label` does its whole job: opening
the model, reading boxes, decoding, batches, masks, journal, output file. Same boxes, same threads, in turn; the
best round of each counts. Both must give the same masks: their mean IoU is measured too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import boxes_by_picture, first_boxes, save

from mal_trt.geometry.crops import Frame, make_frame, read_crop
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.predictor import Predictor
from mal_trt.labelling.run import label
from mal_trt.measure.metrics import mask_iou
from mal_trt.training.checkpoint import load_into, read_checkpoint
from mal_trt.training.network import MALNetwork, build_network

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Eager:
    """A checkpoint's network in PyTorch, and the crops it takes."""

    def __init__(self, checkpoint: Path, weights: str, size: int, margin_rate: float) -> None:
        content = read_checkpoint(checkpoint)
        if content.config is None:
            raise SystemExit(f"error: {checkpoint}: not a MAL checkpoint")
        self.network: MALNetwork = build_network(content.config).eval()
        load_into(self.network, content, weights)
        self.size, self.margin_rate = size, margin_rate

    def run(self, images: Path, boxes: Path, batch: int, thresholds: tuple[float, float, float]) -> dict[Any, RLE]:
        """Masks of all boxes, by annotation id."""
        found: dict[Any, RLE] = {}
        waiting: list[tuple[Any, Frame, np.ndarray]] = []
        for _, picture, objects in boxes_by_picture(images, boxes):
            for annotation, box in objects:
                frame = make_frame(box, picture.shape[1], picture.shape[0], self.size, self.margin_rate)
                waiting.append((annotation["id"], frame, read_crop(picture, frame.extended, frame.size)))
                if len(waiting) == batch:
                    found.update(self._masks(waiting, thresholds))
                    waiting = []
        return {**found, **self._masks(waiting, thresholds)}

    @torch.no_grad()
    def _masks(
        self, waiting: list[tuple[Any, Frame, np.ndarray]], thresholds: tuple[float, float, float]
    ) -> dict[Any, RLE]:
        if not waiting:
            return {}
        crops = [(torch.from_numpy(c.copy()).permute(2, 0, 1) / 255 - MEAN) / STD for _, _, c in waiting]
        areas = torch.tensor([frame.area for _, frame, _ in waiting])
        logits = self.network(torch.stack(crops), areas).numpy()[:, 0]
        return {
            key: rle_from_logits(values, frame, thresholds[frame.size_class])
            for (key, frame, _), values in zip(waiting, logits, strict=True)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--weights", choices=("student", "teacher"), help="default: the model's")
    parser.add_argument("--model", default="bundled", help="the same weights, exported")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="boxes")
    parser.add_argument("--eager-batch", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    predictor = Predictor(arguments.model, "cpu")
    contract, thresholds = predictor.contract, predictor.thresholds
    predictor.close()
    weights = arguments.weights or contract.weights
    network = Eager(arguments.checkpoint, weights, contract.input_size, contract.margin_rate)
    eager, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        some = Path(scratch) / "boxes.json"
        count = first_boxes(arguments.images, arguments.boxes, arguments.count, some)
        for number in range(arguments.rounds):
            started = time.perf_counter()
            masks = network.run(arguments.images, some, arguments.eager_batch, thresholds)
            eager.append(count / (time.perf_counter() - started))
            out = Path(scratch) / f"labels-{number}.json"
            started = time.perf_counter()
            label(
                arguments.images,
                some,
                arguments.model,
                out,
                batch=arguments.batch,
                device="cpu",
                threads=arguments.threads,
                progress=False,
            )
            whole.append(count / (time.perf_counter() - started))
            print(f"round {number}: eager {eager[-1]:.1f} boxes/s, label {whole[-1]:.1f} boxes/s")
        labels = json.loads(out.read_text())["annotations"]
    agreement = float(np.mean([mask_iou(a["segmentation"], masks[a["id"]]) for a in labels]))
    ratio = max(whole) / max(eager)
    print(f"label is {ratio:.2f} times as fast; masks agree to a mean IoU of {agreement:.4f}")
    save(
        arguments.json,
        {
            "model": Path(arguments.model).name,
            "weights": weights,
            "boxes": count,
            "eager_batch": arguments.eager_batch,
            "batch": arguments.batch,
            "threads": arguments.threads,
            "torch": torch.__version__,
            "eager_boxes_per_s": [round(x, 2) for x in eager],
            "label_boxes_per_s": [round(x, 2) for x in whole],
            "ratio": round(ratio, 3),
            "mean_iou_between": round(agreement, 5),
        },
    )


if __name__ == "__main__":
    main()
