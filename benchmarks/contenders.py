"""This program and what people would write instead, for `headline.py`: one of them, once, in a process of its own.

    python benchmarks/contenders.py NAME --images DIR|TAR --boxes boxes.json --out figures.json [--model bundled]
        [--threads 2] [--calls 200] [--points points.json]

Each gets the same boxes and gives run lengths. The plain scripts decode a picture, cut its crops, run the network on
batches of BATCH and turn the logits into masks, one after the other; they have read and warmed up the model before the
clock starts. `label` does its whole job within its time: opening the model, reading boxes, journal, output file.
GrabCut is that of `baselines.py`, a box on each thread.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cells import peak_mb, seconds_since_start
from common import Box, boxes_by_picture

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import contract_of
from mal_trt.base.errors import MalTrtError
from mal_trt.geometry.crops import Frame, make_frame, read_crop
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.rle import RLE, encode_rle

BATCH = 16
WARM_UP = 5
Masks = dict[Any, RLE]
Logits = Callable[[np.ndarray], np.ndarray]  # uint8 [N,3,S,S] -> float32 [N,h,w]


@dataclass(frozen=True)
class Task:
    """What to label, and with what: see the options. folder: for files on the way."""

    images: Path
    boxes: Path
    model: str
    threads: int
    folder: Path


class Contender(Protocol):
    """Ready to draw masks. facts: versions and settings that matter."""

    facts: dict[str, Any]

    def one(self, picture: np.ndarray, box: Box) -> RLE:
        """The mask of one XYXY box in a picture, uint8 [H,W,3]."""
        ...

    def all(self) -> tuple[float, Masks]:
        """Seconds for all boxes of the task, from files to run lengths, and the masks by annotation id."""
        ...


class Label:
    """`mal-trt label`, and `Labeler` for one box."""

    def __init__(self, task: Task, backend: str, device: str = "cpu", model: str | None = None) -> None:
        from mal_trt import Labeler

        self._task, self._model = task, model or task.model
        self._options: dict[str, Any] = {"device": device, "threads": task.threads}
        if "backend" in inspect.signature(Labeler).parameters:
            self._options["backend"] = backend
        elif backend == "openvino":
            raise RuntimeError("this mal-trt has no --backend")
        self._open = partial(Labeler, self._model, **self._options)
        self._labeler = self._open()
        self.facts: dict[str, Any] = {"mal_trt": version("mal-trt")}

    def one(self, picture: np.ndarray, box: Box) -> RLE:
        return self._labeler(picture, [box]).rle[0]

    def all(self) -> tuple[float, Masks]:
        from mal_trt.labelling.run import label

        self._labeler.close()
        out = self._task.folder / "labels.json"
        began = time.perf_counter()
        summary = label(self._task.images, self._task.boxes, self._model, out, progress=False, **self._options)
        seconds = time.perf_counter() - began
        self.facts["provider"] = summary.provider
        if found := re.search(r"\((\w+)\)$", summary.provider):  # such as OpenVINO (bf16)
            self.facts["precision"] = found[1]
        records = json.loads(out.read_text())["annotations"]
        self._labeler = self._open()
        return seconds, {record["id"]: record["segmentation"] for record in records}


class Plain:
    """A script around a network: crops of one picture after the other, in batches."""

    def __init__(self, task: Task, logits: Logits, contract: Contract, facts: dict[str, Any]) -> None:
        self._task, self._logits, self._contract, self.facts = task, logits, contract, facts
        side = contract.input_size
        logits(np.zeros((BATCH, 3, side, side), np.uint8))  # some compile, and all allocate, when they first run

    def one(self, picture: np.ndarray, box: Box) -> RLE:
        return self._masks([self._cut(picture, box)])[0]

    def all(self) -> tuple[float, Masks]:
        found: Masks = {}
        waiting: list[tuple[Any, Frame, np.ndarray]] = []

        def run() -> None:
            found.update(zip((key for key, *_ in waiting), self._masks([w[1:] for w in waiting]), strict=True))
            waiting.clear()

        began = time.perf_counter()
        for _, picture, objects in boxes_by_picture(self._task.images, self._task.boxes):
            for annotation, box in objects:
                waiting.append((annotation["id"], *self._cut(picture, box)))
                if len(waiting) == BATCH:
                    run()
        if waiting:
            run()
        return time.perf_counter() - began, found

    def _cut(self, picture: np.ndarray, box: Box) -> tuple[Frame, np.ndarray]:
        contract = self._contract
        frame = make_frame(box, picture.shape[1], picture.shape[0], contract.input_size, contract.margin_rate)
        return frame, read_crop(picture, frame.extended, frame.size).transpose(2, 0, 1)

    def _masks(self, crops: list[tuple[Frame, np.ndarray]]) -> list[RLE]:
        # Strides other than those of the warm-up would be compiled once more, within the time.
        logits = self._logits(np.ascontiguousarray([crop for _, crop in crops]))
        thresholds = self._contract.thresholds
        return [
            rle_from_logits(values, frame, thresholds[frame.size_class])
            for values, (frame, _) in zip(logits, crops, strict=True)
        ]


def contract(task: Task) -> tuple[str, Contract]:
    """The model's file, and its contract; ValueError for a network that takes more than crops."""
    import onnxruntime

    path = resolve_model(task.model)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = contract_of(session.get_modelmeta().custom_metadata_map, path)
    if found.head == "dynamic" or found.input_dtype != "uint8":
        raise ValueError(f"{path.name}: the plain script runs networks with one mask head and uint8 crops alone")
    return str(path), found


def onnxruntime_plain(task: Task, provider: str = "CPUExecutionProvider") -> Plain:
    import onnxruntime

    path, facts = contract(task)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime fell back to {session.get_providers()[0]}")

    def logits(crops: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(["logits"], {"image": crops})[0][:, 0]
        return found

    return Plain(task, logits, facts, {"onnxruntime": onnxruntime.__version__, "provider": provider})


def openvino_plain(task: Task) -> Plain:
    import openvino  # type: ignore[import-not-found]

    path, facts = contract(task)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": task.threads})
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def logits(crops: np.ndarray) -> np.ndarray:
        found: np.ndarray = compiled({"image": crops})["logits"][:, 0]
        return found

    return Plain(task, logits, facts, {"openvino": openvino.__version__, "precision": precision})


def torch_plain(task: Task, device: str = "cpu", compiled: bool = False) -> Plain:
    import torch

    from mal_trt.training.checkpoint import load_into
    from mal_trt.training.exported import read_start
    from mal_trt.training.network import build_network

    torch.set_num_threads(task.threads)
    _, facts = contract(task)
    content = read_start(task.model)
    if content.config is None:
        raise ValueError(f"{task.model}: not a network")
    network = build_network(content.config).eval()
    load_into(network, content, facts.weights)
    network.to(device)
    grid = network.config.grid(0)  # type: ignore[arg-type]
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def forward(crops: Any) -> Any:
        return network.forward_grid((crops / 255 - mean) / std, grid)

    # Shapes are compiled one by one: a batch of one, and a full one that the last of a run is filled up to.
    run = torch.compile(forward, dynamic=False) if compiled else forward

    def logits(crops: np.ndarray) -> np.ndarray:
        count = len(crops)
        if compiled and 1 < count < BATCH:
            crops = np.concatenate([crops, np.zeros((BATCH - count, *crops.shape[1:]), np.uint8)])
        with torch.no_grad():
            found: np.ndarray = run(torch.from_numpy(crops).to(device)).cpu().numpy()[:count, 0]
        return found

    return Plain(task, logits, facts, {"torch": torch.__version__, "device": device})


class GrabCut:
    """OpenCV's GrabCut, as `baselines.py` has it."""

    def __init__(self, task: Task) -> None:
        import cv2
        from baselines import grabcut_mask

        cv2.setNumThreads(1)
        self._mask, self._task = grabcut_mask, task
        self._pool = ThreadPoolExecutor(task.threads)
        self.facts: dict[str, Any] = {"opencv": cv2.__version__}

    def one(self, picture: np.ndarray, box: Box) -> RLE:
        return encode_rle(self._mask(picture, box), *picture.shape[:2])

    def all(self) -> tuple[float, Masks]:
        found: Masks = {}
        began = time.perf_counter()
        for _, picture, objects in boxes_by_picture(self._task.images, self._task.boxes):
            masks = self._pool.map(partial(self.one, picture), (box for _, box in objects))
            found.update(zip((annotation["id"] for annotation, _ in objects), masks, strict=True))
        return time.perf_counter() - began, found


def label_rtx(task: Task) -> Label:
    engine = task.folder / "model.engine"
    options = ["--flavor", "tensorrt-rtx", "--precision", "fp16", "--batch", "1,16,64", "--quiet"]
    command = [sys.executable, "-m", "mal_trt.cli", "build-engine", task.model, "-o", str(engine), *options]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        raise RuntimeError((built.stderr.strip() or f"build-engine ended with {built.returncode}").splitlines()[-1])
    return Label(task, "tensorrt", "cuda", str(engine))


# By name: the title, whether it needs an NVIDIA GPU, and what opens it.
CONTENDERS: dict[str, tuple[str, bool, Callable[[Task], Contender]]] = {
    "label": ("**mal-trt**, ONNX Runtime", False, partial(Label, backend="onnxruntime")),
    "label-openvino": ("**mal-trt**, OpenVINO", False, partial(Label, backend="openvino")),
    "openvino": ("OpenVINO, plain script", False, openvino_plain),
    "onnxruntime": ("ONNX Runtime, plain script", False, onnxruntime_plain),
    "compiled": ("PyTorch, `torch.compile`", False, partial(torch_plain, compiled=True)),
    "eager": ("PyTorch, eager", False, torch_plain),
    "grabcut": ("GrabCut (OpenCV)", False, GrabCut),
    "label-cuda": ("**mal-trt**, ONNX Runtime on the GPU", True, partial(Label, backend="onnxruntime", device="cuda")),
    "label-rtx": ("**mal-trt**, TensorRT-RTX", True, label_rtx),
    "onnxruntime-cuda": (
        "ONNX Runtime on the GPU, plain script",
        True,
        partial(onnxruntime_plain, provider="CUDAExecutionProvider"),
    ),
    "compiled-cuda": ("PyTorch on the GPU, `torch.compile`", True, partial(torch_plain, device="cuda", compiled=True)),
    "eager-cuda": ("PyTorch on the GPU, eager", True, partial(torch_plain, device="cuda")),
}
PACKAGES = {
    "openvino": "openvino",
    "cv2": "opencv-python-headless",
    "torch": "torch (extra train)",
    "onnxruntime": "onnxruntime (extra cpu)",
    "onnx": "onnx (extra train)",
    "tensorrt_rtx": "tensorrt_rtx (extra rtx)",
}


def turns(images: Path, boxes: Path, calls: int) -> Iterator[tuple[np.ndarray, Box]]:
    """Decoded pictures and boxes for single calls: the document's in order, over and over."""
    for _ in itertools.count():
        for _, picture, found in boxes_by_picture(images, boxes, calls):
            for _, box in found:
                yield picture, box


def measure(name: str, task: Task, calls: int) -> tuple[dict[str, Any], Masks]:
    """The figures of one contender, and its masks."""
    _, _, opens = CONTENDERS[name]
    contender = opens(task)
    singles = turns(task.images, task.boxes, calls)
    contender.one(*next(singles))
    first = seconds_since_start()
    seconds, masks = contender.all()
    peak = peak_mb()
    for picture, box in itertools.islice(singles, WARM_UP):
        contender.one(picture, box)
    taken = []
    for picture, box in itertools.islice(singles, calls):
        began = time.perf_counter()
        contender.one(picture, box)
        taken.append(1000 * (time.perf_counter() - began))
    figures = {
        "boxes": len(masks),
        "boxes_per_s": round(len(masks) / seconds, 2),
        "p50_ms": round(float(np.percentile(taken, 50)), 2),
        "p99_ms": round(float(np.percentile(taken, 99)), 2),
        "peak_mb": round(peak),
        "first_mask_s": round(first, 2),
        "facts": contender.facts,
    }
    return figures, masks


def quality(masks: Masks, boxes: Path, points: Path | None) -> dict[str, Any]:
    """mIoU over classes with the masks that are drawn; the share of points that masks get right."""
    from mal_trt.formats.segmentations import to_rle
    from mal_trt.measure.metrics import score_object, summarize
    from mal_trt.measure.points import hits, read_points

    document = json.loads(boxes.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    scores = []
    for record in document["annotations"]:
        if record.get("segmentation"):
            truth, (_, _, w, h) = to_rle(record["segmentation"], *sizes[record["image_id"]]), record["bbox"]
            scores.append(score_object(masks[record["id"]], truth, record["category_id"], w * h))
    found: dict[str, Any] = {}
    if scores:
        found["miou"] = round(summarize(scores, {c["id"]: c["name"] for c in document["categories"]})["miou"], 4)
    if points is not None:
        given = read_points(points)
        right = sum(
            hits(masks[key], p.inside) + len(p.outside) - hits(masks[key], p.outside) for key, p in given.items()
        )
        found["points"] = round(right / sum(len(p.inside) + len(p.outside) for p in given.values()), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True, help="COCO; drawn masks are looked at for the mIoU alone")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calls", type=int, default=200, help="of one box each, for the latency")
    parser.add_argument("--points", type=Path, help="points of the boxes' objects, see examples/points.json")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        task = Task(arguments.images, arguments.boxes, arguments.model, arguments.threads, Path(name))
        try:
            figures, masks = measure(arguments.name, task, arguments.calls)
            figures |= quality(masks, arguments.boxes, arguments.points)
        except ImportError as error:
            missing = (error.name or "").partition(".")[0]
            figures = {"error": f"not installed: {PACKAGES.get(missing, missing or str(error))}"}
        except MalTrtError as error:
            figures = {"error": str(error)}
        except Exception as error:  # whatever happens to one contender is a result, and the others go on
            figures = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    arguments.out.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
