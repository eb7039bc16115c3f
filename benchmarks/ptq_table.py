"""Quantised files of any origin against the model they came from: accuracy, Q/DQ nodes, and whether RTX builds them.

    python benchmarks/ptq_table.py --reference bundled --models modelopt=a.onnx ours=b.onnx --data DIR [--json FILE]

DIR holds one folder per set with val.json (COCO, boxes and drawn masks) and images-00.tar; --count boxes of each set at
most, spread evenly. Run by ONNX Runtime as `mal-trt compare` does; built by `mal-trt build-engine`, which needs
tensorrt_rtx and no GPU. With --boxes-only the masks are not scored: for networks with random weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from common import save

from mal_trt.measure.compare import compare


def nodes(path: Path) -> dict[str, Any]:
    """How many Q and DQ nodes a file has, which operators read dequantised values, and its size."""
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    floats = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    fed = Counter(node.op_type for node in graph.node if floats & set(node.input))
    return {
        "bytes": path.stat().st_size,
        "q": kinds["QuantizeLinear"],
        "dq": kinds["DequantizeLinear"],
        "quantised": dict(fed.most_common()),
    }


def built(path: Path) -> dict[str, Any]:
    """The engine's size, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Path(folder) / "model.engine"
        command = [sys.executable, "-m", "mal_trt.cli", "build-engine", str(path), "--out", str(engine), "--quiet"]
        options = ["--flavor", "tensorrt-rtx", "--timing-cache", str(Path(folder) / "cache"), "--batch", "1,4,4"]
        ran = subprocess.run([*command, *options], capture_output=True, text=True)
        if ran.returncode == 0:
            return {"builds": True, "engine_bytes": engine.stat().st_size}
        said = (ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"])[-1]
        return {"builds": False, "reason": said.replace(str(path), path.name)[:300]}


def figures(model: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a model's comparison."""
    error, scores = model["logit_error"], model["miou"]
    return {
        "boxes": model["boxes"],
        "iou": round(model["mask_iou"]["mean"], 5),
        "below_0.9": round(model["mask_iou"]["below_0.9"], 5),
        "logit_error": round(error["relative_mean"], 6),
        "largest_logit_error": round(error["relative_max"], 5),
        "not_finite": model["not_finite"]["count"],
        **(
            {"miou": round(scores["other"]["all"], 5), "difference": round(scores["difference"]["all"], 5)}
            if scores
            else {}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", default="bundled")
    parser.add_argument("--models", nargs="+", metavar="NAME=FILE", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", help="default: all")
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--boxes-only", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    models = {name: Path(path) for name, _, path in (text.partition("=") for text in arguments.models)}
    sets = arguments.sets or sorted(p.parent.name for p in arguments.data.glob("*/val.json"))

    rows: dict[str, dict[str, Any]] = {}
    for name, path in models.items():
        rows[name] = {**nodes(path), **built(path), "sets": {}}
        print(name, rows[name], flush=True)
    reference = {}
    for name in sets:
        images, masks = arguments.data / name / "images-00.tar", arguments.data / name / "val.json"
        given = (None, masks) if arguments.boxes_only else (masks, None)
        result = compare([arguments.reference, *models.values()], images, *given, count=arguments.count, progress=False)
        for row, model in zip(rows.values(), result["models"], strict=True):
            row["sets"][name] = figures(model)
        if not arguments.boxes_only:
            reference[name] = round(result["models"][0]["miou"]["reference"]["all"], 5)
        print(name, {label: row["sets"][name] for label, row in rows.items()}, flush=True)

    print(f"{'':26}{'MB':>6}{'Q':>5}{'DQ':>5}  RTX   IoU   error %" + "".join(f"{name[:9]:>10}" for name in sets))
    if reference:
        print(f"{'FP32':53}" + "".join(f"{value:10.4f}" for value in reference.values()))
    for name, row in rows.items():
        each = row["sets"].values()
        boxes = sum(s["boxes"] for s in each)
        row["iou"] = round(sum(s["iou"] * s["boxes"] for s in each) / boxes, 5)
        row["logit_error"] = round(sum(s["logit_error"] * s["boxes"] for s in each) / boxes, 6)
        differences = "".join(f"{s['difference']:+10.4f}" for s in each if "difference" in s)
        print(
            f"{name:26}{row['bytes'] / 1e6:6.1f}{row['q']:5}{row['dq']:5}  {'yes' if row['builds'] else 'no':3}"
            f"{row['iou']:8.4f}{100 * row['logit_error']:8.3f}{differences}"
        )
    facts = {"reference": Path(arguments.reference).name, "count": arguments.count, "reference_miou": reference}
    save(arguments.json, {**facts, "models": rows})


if __name__ == "__main__":
    main()
