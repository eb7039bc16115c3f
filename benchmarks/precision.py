"""What FP16, INT8 and FP8 cost the bundled model, on every validation set, and what the observers make of INT8.

    python benchmarks/precision.py --data DATA [--count 600] [--threads 1] [--work DIR] [--json FILE]

DATA holds a folder for each set with images-00.tar, train_boxes.json (the ranges come from these) and val.json (drawn
masks, only for the figures). Two figures a model: as ONNX Runtime's CPU provider runs the file, and with FP16 rounded
between nodes as a GPU does (see mal_trt/calibration/emulate.py). No gate: every layer of the groups is quantised. The
JSON is written after each set, so that a run that is stopped leaves the sets it has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from common import save

from mal_trt.calibration.calibrate import calibrate
from mal_trt.calibration.convert import convert
from mal_trt.calibration.emulate import emulate
from mal_trt.calibration.observe import OBSERVERS
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.measure.compare import compare

SETS = ("coco", "coco_person", "sysu_shape", "ccp", "caltech", "nuclei", "tile_defects")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, help="boxes of each set, spread over it; default: all")
    parser.add_argument("--threads", type=int, help="default: every core")
    parser.add_argument("--work", type=Path, help="folder that keeps the models, so that a stopped run goes on")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sources = [(arguments.data / name / "images-00.tar", arguments.data / name / "train_boxes.json") for name in SETS]
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        before = (
            json.loads(arguments.json.read_text())
            if arguments.work and arguments.json and arguments.json.exists()
            else {}
        )
        models, gates = make(folder, sources, arguments.threads, before.get("gates", {}))
        sets: dict[str, Any] = before["sets"] if before.get("count") == arguments.count else {}
        save(arguments.json, {"count": arguments.count, "gates": gates, "sets": sets})
        for name in SETS:
            if name in sets:
                continue
            images, masks = arguments.data / name / "images-00.tar", arguments.data / name / "val.json"
            result = compare(
                ["bundled", *models.values()],
                images,
                masks,
                count=arguments.count,
                threads=arguments.threads,
                progress=False,
            )
            sets[name] = {label: figures(m) for label, m in zip(models, result["models"], strict=True)}
            sets[name]["fp32"] = {"miou": result["models"][0]["miou"]["reference"]["all"]}
            for label, row in sets[name].items():
                print(name, label, {key: round(value, 5) for key, value in row.items()}, flush=True)
            save(arguments.json, {"count": arguments.count, "gates": gates, "sets": sets})


def make(
    folder: Path, sources: list[tuple[Path, Path]], threads: int | None, gates: dict[str, Any]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The models to compare by label, and what the gates said on boxes of the training sets.

    gates: of an earlier run in this folder; its models are not made again.
    """
    models = {"fp16": folder / "fp16.onnx"}
    if "fp16" not in gates:
        half = convert("bundled", models["fp16"], images=sources[0][0], boxes=sources[0][1], threads=threads)
        gates["fp16"] = {"bytes": half.file_bytes, "iou": half.agreement["mask_iou"]["mean"]}
    ungated = CalibrationSettings(sensitivity_crops=0, max_miou_drop=1.0, threads=threads)
    for label, settings in {
        **{f"int8 {observer}": replace(ungated, observer=observer) for observer in OBSERVERS},
        "int8 encoder": replace(ungated, layers=("linear", "conv")),
        "fp8": replace(ungated, precision="fp8"),
    }.items():
        out = folder / f"{label.replace(' ', '_')}.onnx"
        if label not in gates:
            cache = folder / f"{'-'.join(settings.layers) or 'usual'}.npz"
            report = calibrate("bundled", out, sources, settings, cache=cache)
            gates[label] = {"bytes": report.file_bytes, "iou": report.document["agreement"]["mask_iou"]["mean"]}
            print(label, gates[label], flush=True)
        if label in ("int8 mse", "fp8"):
            models[label] = out
    for label, path in list(models.items()):
        rounded = path.with_name(f"rounded_{path.name}")
        onnx.save(emulate(onnx.load(path)), rounded)
        models[f"{label} rounded"] = rounded
    return models, gates


def figures(model: dict[str, Any]) -> dict[str, float]:
    """What is reported of one model on one set."""
    return {
        "miou": model["miou"]["other"]["all"],
        "difference": model["miou"]["difference"]["all"],
        "iou": model["mask_iou"]["mean"],
        "worst_iou": model["mask_iou"]["worst"],
        "logit_error": model["logit_error"]["relative_mean"],
    }


if __name__ == "__main__":
    main()
