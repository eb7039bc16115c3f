"""The runtime's own side alone: decoding, copies, kernels, run lengths and files, with the network skipped.

    python benchmarks/gpu/host.py [--model bundled] [--device cuda] [--copies 200] [--seconds 2]

In the network's place ready logits are copied to where its own would be: on a GPU from page-locked memory, on a
processor by NumPy. What `label` and its masker reach then is the most that they can reach with any network. boxes/s,
the best of the rounds, in WORK/host_pipeline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from mal_trt import label
from mal_trt.backends import DeviceBackend, open_backend
from mal_trt.formats.images import open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.labelling import predictor as predictor_module
from mal_trt.labelling.masker import Places
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.predictor import LARGEST_BATCH, Predictor

WORK = Path(os.environ.get("WORK", "/tmp/gpu"))
EXAMPLES = Path(str(resources.files("mal_trt.examples")))
WORKERS = 4  # threads of the masker alone
BATCH = 16


def ready_logits(count: int, side: int) -> np.ndarray:
    """Blobs with ragged edges, float32 [count,1,side,side], which switch about as often as real masks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side - 0.5
    noise = rng.normal(0, 0.5, (count, 1, side, side))
    return (6 - 60 * (x**2 + y**2) + noise).astype(np.float32)


class Skipped:
    """A backend without its network, for crops in the processor's memory. skipped: batches that came."""

    def __init__(self, backend: Any) -> None:
        self._backend, self.skipped = backend, 0
        self.contract, self.provider, self.outputs = backend.contract, backend.provider, backend.outputs
        self.precision, self.notes = backend.precision, backend.notes
        if isinstance(backend, DeviceBackend):
            side = max(backend.logits_side(size) for size in SizeClass)
        else:
            crops = np.zeros((1, 3, *[self.contract.input_size] * 2), self.contract.input_dtype)
            side = backend.run(crops, SizeClass.LARGE).shape[-1]
        self._logits = ready_logits(LARGEST_BATCH, side)

    def run(self, image: np.ndarray, size: SizeClass, weights: str | None = None) -> np.ndarray:
        self.skipped += 1
        return self._logits[np.arange(len(image)) % len(self._logits)]

    def close(self) -> None:
        self._backend.close()


class SkippedOnDevice(Skipped):
    """The same for crops on a GPU. All size classes have logits of one size here."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self.driver = backend.driver
        with self.driver.current():
            self._pinned, _ = self.driver.allocate_pinned(self._logits.nbytes)
        self._pinned[:] = self._logits.view(np.uint8).ravel()
        self._each = self._logits[0].nbytes

    def most(self, size: SizeClass) -> int:
        return min(LARGEST_BATCH, int(self._backend.most(size)))

    def least(self, size: SizeClass) -> int:
        return int(self._backend.least(size))

    def logits_side(self, size: SizeClass) -> int:
        return int(self._logits.shape[-1])

    def enqueue(
        self, image: int, logits: int, count: int, size: SizeClass, stream: int, weights: str | None = None
    ) -> None:
        self.skipped += 1
        with self.driver.current():
            self.driver.copy_to_device(logits, self._pinned[: count * self._each], stream)

    def close(self) -> None:
        with self.driver.current():
            self.driver.free_pinned(self._pinned)
        super().close()


def without_network(*arguments: Any, **options: Any) -> Skipped:
    """As `open_backend`."""
    backend = open_backend(*arguments, **options)
    return SkippedOnDevice(backend) if isinstance(backend, DeviceBackend) else Skipped(backend)


def repeated(copies: int, folder: Path) -> Path:
    """The example photos' boxes, every picture `copies` times."""
    document = json.loads((EXAMPLES / "boxes.json").read_text())
    step = 1 + max(record["id"] for name in ("images", "annotations") for record in document[name])
    made: dict[str, Any] = {**document, "images": [], "annotations": []}
    for turn in range(copies):
        made["images"] += [{**entry, "id": entry["id"] + turn * step} for entry in document["images"]]
        made["annotations"] += [
            {**record, "id": record["id"] + turn * step, "image_id": record["image_id"] + turn * step}
            for record in document["annotations"]
        ]
    path = folder / "boxes.json"
    path.write_text(json.dumps(made))
    return path


def whole_way(model: str, device: str, copies: int, rounds: int, **options: Any) -> dict[str, Any]:
    """`label` from files to the labels' file. first: boxes/s of the first round, which compiles and allocates."""
    with tempfile.TemporaryDirectory() as name, patch.object(predictor_module, "open_backend", without_network):
        boxes = repeated(copies, Path(name))
        found = []
        for turn in range(rounds + 1):
            out = Path(name) / f"{turn}.json"
            done = label(EXAMPLES / "photos", boxes, model, out, device=device, progress=False, **options)
            found.append(done.labelled / done.seconds)
    return {"boxes": done.labelled, "boxes_per_s": round(max(found[1:]), 1), "first": round(found[0], 1)}


def masker_alone(model: str, device: str, seconds: float, rounds: int, **options: Any) -> dict[str, Any]:
    """Decoded pictures to run lengths, in batches of BATCH by WORKERS threads; no files."""
    document = json.loads((EXAMPLES / "boxes.json").read_text())
    source = open_images(EXAMPLES / "photos")
    pictures = [source.load(e["file_name"], (e["width"], e["height"])) for e in document["images"]]
    with patch.object(predictor_module, "open_backend", without_network):
        predictor = Predictor(model, device)
    masker = open_masker(predictor, **options)
    batches = []
    for entry, picture in zip(document["images"], pictures, strict=True):
        given = [record["bbox"] for record in document["annotations"] if record["image_id"] == entry["id"]]
        corners = [(x, y, x + w, y + h) for x, y, w, h in given]
        frames = [predictor.frame(box, entry["width"], entry["height"]) for box in corners]
        if frames:
            batches.append((picture, Frames.of([frames[slot % len(frames)] for slot in range(BATCH)])))

    def work(turn: int) -> int:
        picture, frames = batches[turn % len(batches)]
        batch = masker.batch(frames, SizeClass.LARGE)
        masker.cut([picture], Places.filling(batch))
        return sum(mask is not None for mask in masker.masks(batch))

    found = []
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(2 * WORKERS)))  # compiles and allocates
            for _ in range(rounds):
                began, done, turn = time.perf_counter(), 0, 0
                while time.perf_counter() - began < seconds:
                    done += sum(pool.map(work, range(turn, turn + 4 * WORKERS)))
                    turn += 4 * WORKERS
                found.append(done / (time.perf_counter() - began))
    finally:
        masker.close()
        predictor.close()
    return {"batch": BATCH, "threads": WORKERS, "boxes_per_s": round(max(found), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    shared = arguments.model, arguments.device
    for crops in ("auto", "cpu") if arguments.device != "cpu" else ("cpu",):
        where = "beside the network" if crops == "auto" else "on the CPU"
        for what, row in (
            ("masker", masker_alone(*shared, arguments.seconds, arguments.rounds, crops=crops)),
            ("label", whole_way(*shared, arguments.copies, arguments.rounds, crops=crops)),
        ):
            rows.append({"what": what, "crops": where, "device": arguments.device, **row})
            print(rows[-1], flush=True)
            (WORK / "host_pipeline.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
