"""What do small networks keep of the model they learn from? Trains mal-edge and mal-nano, and measures them with it.

    python benchmarks/distil.py --data DATA --out DIR [--samples 40000] [--threads 1] [--precision bf16]
        [--teacher MODEL] [--only mal-edge] [--speed-only] [--json FILE]

DATA holds a folder for each set with images-00.tar, train_boxes.json (training sees nothing else) and val.json (drawn
masks, only for the figures). Every stage is skipped where its result lies in DIR, and a killed one goes on: the
teacher's masks, a run of each student, its export, its figures on a set. --speed-only: of students without training,
which takes a minute. Speeds are crops for each second of processor time of one thread, all networks in turn, the median
of the rounds. OpenVINO and TensorRT-RTX are measured where they are installed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from common import save

from mal_trt import EngineOptions, MalTrtError, build_engine, evaluate, export_onnx
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.calibration.graph import fold_constants, load_onnx
from mal_trt.calibration.macs import multiplications
from mal_trt.calibration.quantize import layers
from mal_trt.calibration.sample import CropBatch
from mal_trt.export.bundled import sized, sources, thinned
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.checkpoint import save_checkpoint
from mal_trt.training.config import TrainConfig, recipe_config
from mal_trt.training.loop import CHECKPOINT, train
from mal_trt.training.network import build_network
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.teaching import weight_count
from mal_trt.training.trainer import network_config

STUDENTS = ("mal-edge", "mal-nano")
SETS = ("coco", "coco_person", "sysu_shape", "ccp", "caltech", "nuclei", "tile_defects")
BATCH, ROUNDS, RUNS = 16, 7, 3
FIGURES = ("miou", "miou_instance", "boundary_iou", "recall", "precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--teacher", default="bundled")
    parser.add_argument("--samples", type=int, default=40_000, help="of each student")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16", help="fp32 where bf16 is only emulated")
    parser.add_argument("--only", nargs="+", choices=STUDENTS, default=STUDENTS)
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    models = {"teacher": resolve_model(given.teacher)}
    for arch in given.only:
        models[arch] = untrained(arch, given.out) if given.speed_only else trained(arch, given)
    figures: dict[str, Any] = {"samples": 0 if given.speed_only else given.samples, "models": {}, "sets": {}}
    speeds = {name: speed(models, run) for name, run in runtimes().items()}
    for name, model in models.items():
        found = figures["models"][name] = {
            "parameters": weight_count(model),
            "bytes": model.stat().st_size,
            "macs": macs(model),
            **engine(model, given.out / f"{name}.engine"),
            **{runtime: speeds[runtime][name] for runtime in speeds},
        }
        print(name, json.dumps(found), flush=True)
    if not given.speed_only:
        for refine in ("none", "color"):
            figures["sets"][refine] = {n: quality(m, n, refine, given) for n, m in models.items()}
        for refine, of in figures["sets"].items():
            for name, sets in of.items():
                mean = sum(s["miou"] for s in sets.values()) / len(sets)
                print(f"{name}, {refine}: mean mIoU {mean:.4f}", {s: round(v["miou"], 4) for s, v in sets.items()})
    save(given.json, figures)


def config_of(arch: str, out: Path, given: argparse.Namespace) -> tuple[TrainConfig, Any]:
    """The run of a student and the boxes it sees: at most four of a picture."""
    images, boxes = sources(given.data)
    boxes = thinned(boxes, out)
    config = recipe_config(
        "distill",
        **{"images": images, "boxes": boxes, "out": out / arch, "arch": arch, "teacher": Path(given.teacher)},
        **{"teacher_cache": out / "teacher.masks", "precision": given.precision, "device": "cpu", "workers": 0},
        **{"resume": True, "seed": 5, "picture_steps": 0},
    )
    rows = read_training_boxes(images, boxes, config.min_area, config.max_area)
    return replace(sized(config, rows, given.samples), preload=True), rows


def trained(arch: str, given: argparse.Namespace) -> Path:
    """The exported student, made where it is not there yet."""
    model = given.out / f"{arch}.onnx"
    if not model.exists():
        config, _ = config_of(arch, given.out, given)
        began = time.time()
        train(config)
        print(f"{arch}: {given.samples} samples, {time.time() - began:.0f} s", flush=True)
        export_onnx(config.out / CHECKPOINT, model, weights="teacher", fp16_weights=True)
    return model


def untrained(arch: str, out: Path) -> Path:
    """An exported student with weights of chance."""
    model = out / f"{arch}.untrained.onnx"
    if not model.exists():
        torch.manual_seed(0)
        config = network_config(recipe_config("distill", images=(), boxes=(), out=out, arch=arch))
        save_checkpoint(out / f"{arch}.untrained.pth", config, student=build_network(config).state_dict())
        export_onnx(out / f"{arch}.untrained.pth", model, fp16_weights=True)
    return model


def crops(model: Path, count: int = BATCH) -> np.ndarray:
    side = read_contract(model).input_size
    return np.random.default_rng(0).integers(0, 255, (count, 3, side, side), dtype=np.uint8)


def runtimes() -> dict[str, Callable[[Path], Callable[[], Any]]]:
    """What runs a batch of a model on one thread, by name."""
    ready: dict[str, Callable[[Path], Callable[[], Any]]] = {"onnxruntime": with_onnxruntime}
    try:
        import openvino  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        return ready
    return {
        **ready,
        "openvino f32": lambda m: with_openvino(m, "f32"),
        "openvino bf16": lambda m: with_openvino(m, "bf16"),
    }


def with_onnxruntime(model: Path) -> Callable[[], Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feeds = feed(session.get_inputs(), model)
    return lambda: [session.run(["logits"], one) for one in feeds]


def feed(inputs: Any, model: Path) -> list[dict[str, np.ndarray]]:
    """A batch in fours, as `label` computes it on a processor."""
    image = crops(model)
    grid = read_contract(model).grid(SizeClass.LARGE)
    more = {"head_grid": np.zeros((1, 1, grid, grid), np.uint8)} if len(inputs) > 1 else {}
    return [{"image": image[at : at + 4], **more} for at in range(0, BATCH, 4)]


def with_openvino(model: Path, precision: str) -> Callable[[], Any]:
    import openvino as ov  # type: ignore[import-not-found]

    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(str(model), "CPU", config)
    request, feeds = compiled.create_infer_request(), feed(compiled.inputs, model)
    return lambda: [request.infer(one) for one in feeds]


def speed(models: dict[str, Path], open_it: Callable[[Path], Callable[[], Any]]) -> dict[str, float]:
    """Crops for each second of processor time."""
    ready = {name: open_it(model) for name, model in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, run in ready.items():
            run()
            began = time.process_time()
            for _ in range(RUNS):
                run()
            found[name].append(RUNS * BATCH / (time.process_time() - began))
    return {name: round(median(values), 1) for name, values in found.items()}


def macs(model: Path) -> int:
    """Multiplications by weights for one crop."""
    proto, contract, _ = load_onnx(model)
    graph = fold_constants(proto)
    batch = CropBatch(SizeClass.LARGE, crops(model, 1), (), ())
    return sum(multiplications(graph, contract, layers(graph), batch, 1).values())


def engine(model: Path, out: Path) -> dict[str, Any]:
    """Bytes and seconds of an FP16 engine of TensorRT-RTX; nothing where that is not installed."""
    try:
        report = build_engine(model, out, EngineOptions(flavor="tensorrt-rtx", precision="fp16", batch=(1, 16, 64)))
    except MalTrtError as error:
        print(f"no engine of {model.name}: {error}")
        return {}
    return {"engine_bytes": report.path.stat().st_size, "engine_seconds": round(report.built.seconds, 1)}


def quality(model: Path, name: str, refine: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Figures against the drawn masks, by set; each is kept in a file."""
    found = {}
    for data in SETS:
        kept = given.out / f"{name}.{refine}.{data}.json"
        if not kept.exists():
            folder = given.data / data
            masks = (folder / "images-00.tar", folder / "val.json")
            evaluate(*masks, model, refine=refine, threads=given.threads, progress=False, json_out=kept)
        result = json.loads(kept.read_text())
        found[data] = {figure: result[figure] for figure in FIGURES}
    return found


if __name__ == "__main__":
    main()
