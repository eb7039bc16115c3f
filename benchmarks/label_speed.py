"""Boxes per second of `label`, end to end, against a bare ONNX Runtime session on the same ready batches.

    python benchmarks/label_speed.py --images DIR|TAR --boxes boxes.json [--count 500] [--json FILE]

End to end: opening the model, reading boxes, decoding, cropping, network, masks, journal, output file. The
bare session only runs the network on crops already cut and batched as `label` does, from memory, with the
same threads. Both are timed in turn, `--rounds` times; the median of the pairs' ratios counts, since a shared machine's
speed drifts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
from common import boxes_by_picture, first_boxes, save

from mal_trt.artifacts.models import resolve_model
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.predictor import Predictor
from mal_trt.labelling.run import label

Batch = dict[str, np.ndarray]


def ready_batches(images: Path, boxes: Path, model: str, count: int, size: int) -> list[Batch]:
    """The session's inputs for the first `count` boxes, one size class per batch."""
    predictor = Predictor(model, "cpu", threads=1)
    filling: dict[SizeClass, list[np.ndarray]] = {}
    batches: list[Batch] = []

    def close(size_class: SizeClass) -> None:
        batch = {"image": np.stack(filling.pop(size_class))}
        if predictor.contract.head == "dynamic":
            grid = predictor.contract.grid(size_class)
            batch["head_grid"] = np.zeros((1, 1, grid, grid), np.uint8)
        batches.append(batch)

    for _, picture, found in boxes_by_picture(images, boxes, count):
        for _, box in found:
            frame = predictor.frame(box, picture.shape[1], picture.shape[0])
            crop = predictor.batch(1, frame.size_class)[0]
            predictor.crop(picture, frame, crop)
            filling.setdefault(frame.size_class, []).append(crop)
            if len(filling[frame.size_class]) == size:
                close(frame.size_class)
    for size_class in list(filling):
        close(size_class)
    predictor.close()
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=500, help="boxes")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, help="of the network; default: every core")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    batches = ready_batches(arguments.images, arguments.boxes, arguments.model, arguments.count, arguments.batch)
    count = sum(len(b["image"]) for b in batches)
    options = ort.SessionOptions()
    if arguments.threads:
        options.intra_op_num_threads = arguments.threads
    path = str(resolve_model(arguments.model))
    bare, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        some = Path(scratch) / "boxes.json"
        first_boxes(arguments.images, arguments.boxes, arguments.count, some)
        for round_number in range(arguments.rounds):
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            session.run(["logits"], batches[0])
            started = time.perf_counter()
            for batch in batches:
                session.run(["logits"], batch)
            bare.append(count / (time.perf_counter() - started))
            del session  # its threads would compete with label's
            out = Path(scratch) / f"labels-{round_number}.json"
            started = time.perf_counter()
            summary = label(
                arguments.images,
                some,
                arguments.model,
                out,
                batch=arguments.batch,
                device="cpu",
                backend="onnxruntime",
                threads=arguments.threads,
                progress=False,
            )
            whole.append(count / (time.perf_counter() - started))
            if summary.labelled != count:
                raise SystemExit(f"error: {summary.labelled} of {count} boxes were labelled")
            print(f"round {round_number}: bare session {bare[-1]:.1f} boxes/s, label {whole[-1]:.1f} boxes/s")
    share = median(w / b for w, b in zip(whole, bare, strict=True))
    print(f"label reaches {share:.1%} of the bare session ({count} boxes, batch {arguments.batch})")
    save(
        arguments.json,
        {
            "model": Path(arguments.model).name,
            "boxes": count,
            "batch": arguments.batch,
            "threads": arguments.threads or "all",
            "onnxruntime": ort.__version__,
            "bare_boxes_per_s": [round(x, 2) for x in bare],
            "label_boxes_per_s": [round(x, 2) for x in whole],
            "share": round(share, 4),
        },
    )


if __name__ == "__main__":
    main()
