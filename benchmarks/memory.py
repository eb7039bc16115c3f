"""Peak memory of `mal-trt label` by number of boxes: it should not grow with it.

    python benchmarks/memory.py [--counts 500 20000] [--images DIR --boxes boxes.json] [--json FILE]

Boxes are jittered copies of the given ones (default: the example photos), so every count has the same mix.
Peak resident set size of the child process, as the operating system counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import save

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
JITTER = 0.1


def jittered(boxes: Path, count: int) -> dict[str, Any]:
    """A COCO document of `count` boxes, each side of each moved by up to a tenth of the box."""
    document = json.loads(boxes.read_text())
    sizes = {i["id"]: (i["width"], i["height"]) for i in document["images"]}
    originals = document["annotations"]
    rng = random.Random(0)
    annotations = []
    for number in range(count):
        original = originals[number % len(originals)]
        width, height = sizes[original["image_id"]]
        x, y, w, h = original["bbox"]
        x0, x1 = (side + rng.uniform(-JITTER, JITTER) * w for side in (x, x + w))
        y0, y1 = (side + rng.uniform(-JITTER, JITTER) * h for side in (y, y + h))
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        box = [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)]
        annotations.append({**original, "id": number + 1, "bbox": box})
    document["annotations"] = annotations
    return document


def peak_megabytes(command: list[str]) -> tuple[float, float]:
    """Peak resident memory of a command, MB of 10^6 bytes, and the seconds it took."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"error: {' '.join(command)} failed with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 20_000])
    parser.add_argument("--images", type=Path, default=EXAMPLES / "photos")
    parser.add_argument("--boxes", type=Path, default=EXAMPLES / "boxes.json")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    program = str(Path(sys.executable).parent / "mal-trt")
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for count in arguments.counts:
            boxes, out = Path(scratch) / f"boxes-{count}.json", Path(scratch) / f"labels-{count}.json"
            boxes.write_text(json.dumps(jittered(arguments.boxes, count)))
            command = [program, "label", "--images", str(arguments.images), "--boxes", str(boxes)]
            command += [
                "--model",
                arguments.model,
                "--out",
                str(out),
                "--device",
                "cpu",
                "--quiet",
                "--strict",
            ]
            if arguments.threads:
                command += ["--threads", str(arguments.threads)]
            peak, seconds = peak_megabytes(command)
            runs.append({"boxes": count, "peak_mb": round(peak, 1), "seconds": round(seconds, 1)})
            print(f"{count:8} boxes: peak {peak:.0f} MB, {seconds:.1f} s", flush=True)
    growth = runs[-1]["peak_mb"] - runs[0]["peak_mb"]
    print(f"from {runs[0]['boxes']} to {runs[-1]['boxes']} boxes: {growth:+.0f} MB")
    save(arguments.json, {"model": Path(arguments.model).name, "runs": runs, "growth_mb": round(growth, 1)})


if __name__ == "__main__":
    main()
