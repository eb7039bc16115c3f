"""Many batches through one model: memory of the process and of the GPU before and after.

python benchmarks/gpu/leak.py [--model bundled] [--device cuda] [--batches 2000] [--json leak.json]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from mal_trt.base.gpu import find_gpus
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.labelling.masker import draw
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.predictor import Predictor

WORK = Path(os.environ.get("WORK", "/tmp/gpu"))
BOXES = 16
SAME = 50  # batches in a row of one size: a runtime may plan anew for each other one


def gpu_bytes() -> int | None:
    """Memory in use on the GPU that is used here, whatever CUDA_VISIBLE_DEVICES makes of its number."""
    gpu = find_gpus().gpu
    return None if gpu is None or gpu.free_bytes is None else gpu.total_bytes - gpu.free_bytes


def process_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", default="leak.json", help="name of the result in the working folder")
    parser.add_argument("--batches", type=int, default=2000)
    arguments = parser.parse_args()
    picture = np.asarray(Image.open(str(resources.files("mal_trt.examples") / "photos" / "chelsea.jpg")).convert("RGB"))
    predictor = Predictor(arguments.model, arguments.device)
    masker = open_masker(predictor)
    height, width = picture.shape[:2]
    rng = np.random.default_rng(0)
    marks = []
    began = time.monotonic()
    for number in range(arguments.batches + 1):
        if number in (arguments.batches // 10, arguments.batches // 2, arguments.batches):
            marks.append({"batches": number, "process": process_bytes(), "gpu": gpu_bytes()})
        if number % SAME == 0:
            count = int(rng.integers(1, BOXES + 1))
        corners = rng.uniform(0, (width - 120, height - 120), (count, 2))
        boxes = np.hstack([corners, corners + rng.uniform(100, 119, (count, 2))])
        frames = [predictor.frame(box, width, height) for box in boxes]
        assert len(draw(masker, [picture], Frames.of(frames), SizeClass.LARGE)) == count
    result = {
        "model": arguments.model,
        "device": arguments.device,
        "seconds": round(time.monotonic() - began, 1),
        "marks": marks,
    }
    masker.close()
    predictor.close()
    print(result)
    (WORK / arguments.json).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
