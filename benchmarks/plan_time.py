"""How long a run takes to begin on a COCO file of many boxes, and with how much memory: reading and planning. With
--through also what follows, without the network and the GPU (see `host_side.py`): run lengths, journal and writing.

    python benchmarks/plan_time.py [--boxes 1000000] [--pictures 10000] [--through] [--profile] [--json FILE]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import save
from host_side import Decoded, NoNetwork
from PIL import Image

from mal_trt.formats.boxes import as_boxes
from mal_trt.formats.images import open_images
from mal_trt.labelling.gpu_masker import GpuMasker
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.outputs import write_outputs
from mal_trt.labelling.pipeline import run_plan
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor
from mal_trt.writers.options import Options

BATCH = 64


def document(path: Path, boxes: int, pictures: int) -> None:
    """A COCO file, written piece by piece."""
    rng = random.Random(0)
    with open(path, "w") as file:
        images = ({"id": at, "file_name": f"{at}.jpg", "width": 640, "height": 480} for at in range(pictures))
        file.write('{"categories":[{"id":1,"name":"a"}],"images":[')
        file.write(",".join(map(json.dumps, images)) + '],"annotations":[')
        for at in range(boxes):
            x, y, side = rng.uniform(0, 500), rng.uniform(0, 350), rng.uniform(10, 120)
            bbox = [round(v, 2) for v in (x, y, side, side)]
            record = {"id": at, "image_id": at % pictures, "category_id": 1, "iscrowd": 0, "bbox": bbox}
            file.write(("," if at else "") + json.dumps(record))
        file.write("]}")


def peak() -> int:
    """Most memory of this process so far, MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds and processor seconds of what is inside, and the peak of memory behind it."""
    found: dict[str, float] = {}
    began, used = time.perf_counter(), time.process_time()
    yield found
    found["seconds"] = round(time.perf_counter() - began, 1)
    found["processor_seconds"] = round(time.process_time() - used, 1)
    found["mb"] = peak()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--through", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pictures"
        folder.mkdir()
        Image.new("RGB", (640, 480)).save(folder / "0.jpg")
        for at in range(1, arguments.pictures):
            (folder / f"{at}.jpg").hardlink_to(folder / "0.jpg")
        path = Path(name) / "boxes.json"
        document(path, arguments.boxes, arguments.pictures)
        before = peak()
        journal = Journal(Path(name) / "out.journal")
        profile = cProfile.Profile() if arguments.profile else None
        if profile is not None:
            profile.enable()
        with timed() as planning:
            boxes = as_boxes(path)
            boxes.sha256()
            write_plan(journal, {}, boxes, None, open_images(folder), BATCH)
        planned, _ = journal.planned_boxes()
        figures = {"boxes": planned, "pictures": arguments.pictures, **planning, "mb_before": before}
        if arguments.through:
            network: Any = NoNetwork(BATCH)
            predictor = Predictor(network)
            with timed() as labelling:
                run_plan(journal, Decoded(640 * 480, True), predictor, GpuMasker(predictor), BATCH, 2)
            with timed() as writing:
                write_outputs(journal, ["coco"], Path(name) / "out.json", Options())
            figures["labelling"] = labelling
            figures["writing"] = {**writing, "file_mb": round((Path(name) / "out.json").stat().st_size / 1e6)}
        if profile is not None:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        figures["journal_mb"] = round(sum(f.stat().st_size for f in Path(name).glob("out.journal*")) / 1e6)
        journal.close()
    print(json.dumps(figures))
    save(arguments.json, figures)


if __name__ == "__main__":
    main()
