"""What one process can feed a GPU, without a GPU: plan, crops' places, queueing, run lengths and journal, with a driver
that does nothing and a network that takes no time.

    python benchmarks/host_side.py --boxes val.json [--count 12000] [--batch 64] [--threads 2] [--rounds 3]
        [--decoded host|gpu] [--processes 1] [--profile] [--json FILE]

The boxes are those of a COCO document, over and over, in pictures that are decoded already: in the host's memory, from
where their bytes are copied, or in the GPU's. Every mask comes back as EDGES switches, as many as masks of coco have.
boxes/s, the best of the rounds, of all processes together; each has a plan and a journal of its own, as shards have.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import multiprocessing
import pstats
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import save

from mal_trt.artifacts.models import resolve_model
from mal_trt.backends.onnxruntime import OnnxRuntimeBackend
from mal_trt.cuda.driver import Device
from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.gpu_masker import GpuMasker
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.pipeline import run_plan
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor

EDGES = 176
SIDE = 48


class NoDriver:
    """See `Driver`: nothing happens, but what a batch brings down is there: switches, how many, and qualities."""

    provider = "none"

    def __init__(self, most: int) -> None:
        self.device = Device(0, "none", (9, 0), False)
        self._handles = itertools.count(0x1000, 0x10)
        pairs = np.arange(EDGES // 2)
        one = np.stack([3000 + 480 * pairs, 3040 + 480 * pairs + pairs % 7], 1).ravel().astype(np.uint32)
        self._edges = np.tile(one, most).view(np.uint8)
        self._totals = np.full(most, EDGES, np.int64).view(np.uint8)

    def current(self) -> Any:
        return nullcontext()

    def allocate(self, size: int) -> int:
        return next(self._handles)

    def allocate_pinned(self, size: int) -> tuple[np.ndarray, int]:
        return np.zeros(size, np.uint8), 0

    def create_stream(self) -> int:
        return next(self._handles)

    def compile(self, source: str) -> bytes:
        return b""

    def copy_to_host(self, memory: np.ndarray, pointer: int, stream: int) -> None:
        size = memory.nbytes
        if size == 4:
            return
        memory[:] = (self._totals if size <= self._totals.nbytes else self._edges)[:size]

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class NoNetwork:
    """A `DeviceBackend` of the bundled model's contract."""

    provider, outputs = "none", ("logits",)

    def __init__(self, most: int) -> None:
        opened = OnnxRuntimeBackend(resolve_model("bundled"), "cpu", 1)
        self.contract, self.precision, self.notes = opened.contract, opened.precision, opened.notes
        opened.close()
        self.driver, self._most = NoDriver(most), most

    def most(self, size: SizeClass) -> int:
        return self._most

    def least(self, size: SizeClass) -> int:
        return 1

    def logits_side(self, size: SizeClass) -> int:
        return SIDE

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        return np.zeros((len(image), 1, SIDE, SIDE), np.float32)

    def enqueue(self, *_: Any) -> None: ...

    def close(self) -> None: ...


class OnGpu:
    """A picture that was decoded there."""

    __cuda_array_interface__ = {"data": (0x1000, False)}  # noqa: RUF012

    def __init__(self, width: int, height: int) -> None:
        self.shape = height, width, 3


class Decoded(ImageSource):
    """Pictures of the document's sizes, all black, decoded already, in the host's memory or in the GPU's."""

    def __init__(self, largest: int, on_gpu: bool) -> None:
        super().__init__()
        self._pixels, self._on_gpu = np.zeros(3 * largest, np.uint8), on_gpu

    def load(self, file_name: str, expected: tuple[int, int] | None = None, by: int = 1) -> Any:
        width, height = expected or (1, 1)
        return OnGpu(width, height) if self._on_gpu else self._pixels[: 3 * width * height].reshape(height, width, 3)

    def find(self, file_name: str) -> str:
        return file_name

    def _list(self) -> Iterable[str]:
        return ()

    def _stream(self, name: str) -> Any:
        raise FileNotFoundError(name)


def repeated(path: Path, count: int, out: Path) -> int:
    """The document's boxes over and over; pixels of its largest picture."""
    document = json.loads(path.read_text())
    by_image: dict[Any, list[Any]] = {}
    for record in document["annotations"]:
        by_image.setdefault(record["image_id"], []).append(record["bbox"])
    images, annotations = [], []
    turns: Iterator[Any] = itertools.cycle([image for image in document["images"] if image["id"] in by_image])
    while len(annotations) < count:
        image = next(turns)
        images.append({**image, "id": len(images) + 1})
        for bbox in by_image[image["id"]]:
            one = {"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "bbox": bbox}
            annotations.append(one)
    out.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}))
    return max(image["width"] * image["height"] for image in images)


def measured(arguments: argparse.Namespace, barrier: Any, number: int) -> list[tuple[int, float, float]]:
    """Boxes, seconds and processor seconds of each round."""
    network: Any = NoNetwork(arguments.batch)
    predictor = Predictor(network)
    masker = GpuMasker(predictor)
    found = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "boxes.json"
            source = Decoded(repeated(arguments.boxes, arguments.count, path), arguments.decoded == "gpu")
            journal = Journal(Path(name) / "out.journal")
            write_plan(journal, {}, path, None, source, arguments.batch)
            planned, _ = journal.planned_boxes()
            profile = cProfile.Profile() if arguments.profile else nullcontext()
            if barrier:
                barrier.wait()
            began, own = time.perf_counter(), time.process_time()
            with profile:
                run_plan(journal, source, predictor, masker, arguments.batch, arguments.threads)
            found.append((planned, time.perf_counter() - began, time.process_time() - own))
            labelled, _ = journal.count()
            assert labelled == planned
            journal.close()
        if arguments.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(20)  # type: ignore[arg-type]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decoded", choices=("host", "gpu"), default="host")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.processes == 1:
        runs = [measured(arguments, None, 0)]
    else:
        with multiprocessing.Manager() as manager:
            barrier = manager.Barrier(arguments.processes)
            with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
                runs = pool.map(partial(measured, arguments, barrier), range(arguments.processes), chunksize=1)
    rounds = list(zip(*runs, strict=True))
    boxes = [sum(count for count, _, _ in one) for one in rounds]
    speeds = [count / max(seconds for _, seconds, _ in one) for count, one in zip(boxes, rounds, strict=True)]
    used = [sum(own for _, _, own in one) / count * 1e6 for count, one in zip(boxes, rounds, strict=True)]
    figures = {
        "boxes": boxes[0],
        "batch": arguments.batch,
        "threads": arguments.threads,
        "processes": arguments.processes,
        "decoded": arguments.decoded,
        "boxes_per_s": round(max(speeds)),
        "processor_us_per_box": round(min(used), 1),
    }
    print(json.dumps(figures))
    save(arguments.json, figures)


if __name__ == "__main__":
    main()
