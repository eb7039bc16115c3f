"""Crops/s of a network on a processor by ONNX Runtime's settings, and by OpenVINO, on the same ready batches.

    python benchmarks/cpu_engines.py --images DIR|TAR --boxes val.json [--model bundled] [--count 192] [--threads 2]
        [--rounds 5] [--only NAME ...] [--busy] [--file NAME=FILE ...] [--json FILE]

Each configuration runs all batches in turn with the others, round by round; the median of its ratios to the first one
counts, which is how `label` runs the model with ONNX Runtime: as many batches at once as LANES, each with its share of
the threads, without spinning, a few crops at a time. On a busy machine the ratios of processor time say more than those
of wall clock. `--backend openvino` is how `label` runs OpenVINO; the rows OpenVINO f32 and bf16 are its bare settings,
those before ONNX Runtime's, to be compared with `whole batches`. --busy: beside as many processes that compute as there
are threads. --file: another file of the same network, such as an INT8 one, as `label` would run it. IoU: of the masks
with those of the first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import onnxruntime as ort
from common import boxes_by_picture, save
from pycocotools import mask as coco

from mal_trt.artifacts.models import resolve_model
from mal_trt.backends import open_backend
from mal_trt.base.errors import MalTrtError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.labelling.pipeline import LANES, lanes, network_threads
from mal_trt.labelling.predictor import Predictor

AS_WRITTEN = {"disable_quant_qdq": "1"}  # INT8 files as `label` computes them
Runs = Callable[[list[dict[str, np.ndarray]]], list[np.ndarray]]


def crops_of(predictor: Predictor, images: Path, boxes: Path, count: int) -> tuple[np.ndarray, list[Frame]]:
    """uint8 [count,3,S,S] and their frames."""
    crops, frames = predictor.batch(count, SizeClass.LARGE), []
    for _, picture, found in boxes_by_picture(images, boxes, count):
        for _, box in found:
            frame = predictor.frame(box, picture.shape[1], picture.shape[0])
            predictor.crop(picture, frame, crops[len(frames)])
            frames.append(frame)
    return crops[: len(frames)], frames


def batches_of(predictor: Predictor, crops: np.ndarray, batch: int) -> list[dict[str, np.ndarray]]:
    feeds = [{"image": crops[at : at + batch]} for at in range(0, len(crops), batch)]
    if predictor.contract.head == "dynamic":
        grid = predictor.contract.grid(SizeClass.LARGE)
        feeds = [{**feed, "head_grid": np.zeros((1, 1, grid, grid), np.uint8)} for feed in feeds]
    return feeds


def onnxruntime(
    path: str, threads: int, lanes: int = LANES, level: int = 99, arena: bool = True, **entries: str
) -> Runs:
    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, threads // lanes)
    options.graph_optimization_level = ort.GraphOptimizationLevel(level)
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    options.log_severity_level = 4
    for name, value in {"intra_op.allow_spinning": "0", **entries}.items():
        options.add_session_config_entry("session." + name, value)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pool = ThreadPoolExecutor(lanes)
    return lambda feeds: list(pool.map(lambda feed: session.run(["logits"], feed)[0], feeds))


def openvino(path: str, threads: int, hint: str, streams: int, precision: str, pinned: bool = False) -> Runs:
    import openvino as ov

    config: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": pinned,
    }
    compiled = ov.Core().compile_model(path, "CPU", config)
    queue = ov.AsyncInferQueue(compiled)
    found: dict[int, np.ndarray] = {}
    queue.set_callback(lambda request, at: found.__setitem__(at, request.get_output_tensor(0).data.copy()))

    def run(feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        found.clear()
        for at, feed in enumerate(feeds):
            queue.start_async(feed, at)
        queue.wait_all()
        return [found[at] for at in range(len(feeds))]

    return run


def backend(name: str, path: str, threads: int) -> Runs:
    """As `label` runs it with `--backend`."""
    opened = open_backend(path, "cpu", network_threads(threads), name, lanes(threads))
    pool = ThreadPoolExecutor(lanes(threads))
    return lambda feeds: list(pool.map(lambda feed: opened.run(feed["image"], SizeClass.LARGE), feeds))


def configurations(path: str, threads: int, files: dict[str, str]) -> dict[str, tuple[int, Callable[[], Runs]]]:
    """By name: the batch, and what opens it."""
    ready: dict[str, tuple[int, Callable[[], Runs]]] = {
        "label": (16, lambda: backend("onnxruntime", path, threads)),
        "whole batches": (16, lambda: onnxruntime(path, threads)),
        "spinning": (16, lambda: onnxruntime(path, threads, **{"intra_op.allow_spinning": "1"})),
        "one lane": (16, lambda: onnxruntime(path, threads, 1)),
        "one lane, spinning": (16, lambda: onnxruntime(path, threads, 1, **{"intra_op.allow_spinning": "1"})),
        "no NCHWc (extended)": (16, lambda: onnxruntime(path, threads, level=2)),
        "no arena, no memory pattern": (16, lambda: onnxruntime(path, threads, arena=False)),
        "denormals are zero": (16, lambda: onnxruntime(path, threads, set_denormal_as_zero="1")),
        "batch 4": (4, lambda: onnxruntime(path, threads)),
        "batch 8": (8, lambda: onnxruntime(path, threads)),
        "batch 32": (32, lambda: onnxruntime(path, threads)),
        "--backend openvino": (16, lambda: backend("openvino", path, threads)),
        "--backend openvino, batch 1": (1, lambda: backend("openvino", path, threads)),
        "--backend openvino, batch 32": (32, lambda: backend("openvino", path, threads)),
    }
    for precision in ("f32", "bf16"):
        for title, batch, hint, streams, pinned in (
            ("a stream for each thread", 16, "THROUGHPUT", threads, False),
            ("the same, pinned", 16, "THROUGHPUT", threads, True),
            ("the same, batch 4", 4, "THROUGHPUT", threads, False),
            ("one stream", 16, "LATENCY", 1, False),
        ):
            ready[f"OpenVINO {precision}, {title}"] = (
                batch,
                lambda hint=hint, streams=streams, precision=precision, pinned=pinned: openvino(  # type: ignore[misc]
                    path, threads, hint, streams, precision, pinned
                ),
            )
    for name, file in files.items():
        if file.endswith(".onnx"):
            ready[name] = (16, lambda file=file: onnxruntime(file, threads, **AS_WRITTEN))  # type: ignore[misc]
        ready[f"{name}, OpenVINO"] = (16, lambda file=file: openvino(file, threads, "THROUGHPUT", threads, "f32"))  # type: ignore[misc]
    return ready


def _compute() -> None:
    while True:
        np.ones((256, 256)) @ np.ones((256, 256))


@contextmanager
def beside(processes: int):  # type: ignore[no-untyped-def]
    started = [multiprocessing.get_context("spawn").Process(target=_compute, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--count", type=int, default=192, help="crops")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="configurations besides the first")
    parser.add_argument("--file", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    predictor = Predictor(arguments.model, "cpu", threads=1, backend="onnxruntime")
    crops, frames = crops_of(predictor, arguments.images, arguments.boxes, arguments.count)
    files = dict(text.split("=", 1) for text in arguments.file)
    ready = configurations(str(resolve_model(arguments.model)), arguments.threads, files)
    opened: dict[str, tuple[list[dict[str, np.ndarray]], Runs]] = {}
    masks: dict[str, list[Any]] = {}
    for name, (batch, open_it) in ready.items():
        if arguments.only and name.removesuffix(", OpenVINO") not in (*arguments.only, *files, "label"):
            continue
        with suppress(
            ImportError, RuntimeError, MalTrtError
        ):  # without OpenVINO, or a file that it cannot read: the rest
            feeds, runs = batches_of(predictor, crops, batch), open_it()
            logits = np.concatenate(runs(feeds))[:, 0]
            refined = np.stack([predictor.refined(*one) for one in zip(logits, crops, frames, strict=True)])
            masks[name] = [mask.rle for mask in predictor.masks(refined, frames)]
            opened[name] = feeds, runs
    seconds: dict[str, list[float]] = {name: [] for name in opened}
    processor: dict[str, list[float]] = {name: [] for name in opened}
    with beside(arguments.threads if arguments.busy else 0):
        for _ in range(arguments.rounds):
            for name, (feeds, runs) in opened.items():
                began, used = time.perf_counter(), time.process_time()
                runs(feeds)
                processor[name].append(time.process_time() - used)
                seconds[name].append(time.perf_counter() - began)
    rows = []
    for name, times in seconds.items():
        ratio, by_processor = (
            median(first / own for first, own in zip(of["label"], of[name], strict=True)) for of in (seconds, processor)
        )
        pairs = zip(masks["label"], masks[name], strict=True)
        rows.append(
            {
                "configuration": name,
                "crops_per_s": round(len(crops) / min(times), 1),
                "ratio": round(ratio, 3),
                "processor_crops_per_s": round(len(crops) / min(processor[name]), 1),
                "processor_ratio": round(by_processor, 3),
                "iou": round(mean(float(coco.iou([a], [b], [0])[0][0]) for a, b in pairs), 4),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    model = Path(arguments.model).name
    save(arguments.json, {"model": model, "threads": arguments.threads, "busy": arguments.busy, "rows": rows})


if __name__ == "__main__":
    main()
