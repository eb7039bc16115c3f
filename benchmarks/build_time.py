"""Seconds, peak memory and engine size of `mal-trt build-engine`, by model and precision.

    python benchmarks/build_time.py [--rounds 3] [--base] [--flavor auto] [--json FILE]

Each build is a process of its own: wall time, processor time (which a busy machine lengthens less) and peak resident
set size as the operating system counts them, and the seconds inside TensorRT that the command prints. The first round
starts with an empty timing cache, the later ones with what it left. --base adds a ViT-Base/16 at 512 pixels with random
weights. FP16 and INT8 files are made here; the ranges of INT8 are made up, since they change the numbers in an engine
and not what is built.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from common import save

from mal_trt.artifacts.manifest import read_manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract

PRECISIONS = ("fp32", "fp16", "int8")


def random_base(folder: Path) -> Path:
    """ViT-Base/16 at 512 pixels with three mask-head grids, exported with random weights."""
    from mal_trt.export import export_onnx
    from mal_trt.training.checkpoint import save_checkpoint
    from mal_trt.training.network import NetworkConfig, build_network

    config = NetworkConfig("vit-mae-base/16", "patch", 512)
    save_checkpoint(folder / "vit-base.pth", config, student=build_network(config).state_dict())
    return export_onnx(folder / "vit-base.pth", folder / "vit-base.onnx").path


def prepare(folder: Path, base: bool) -> None:
    """Write every model in every precision, in the order to build them in, to models.txt.

    In a process of its own: a child's peak memory starts from that of the process that forked it.
    """
    models = [resolve_model("bundled"), *([random_base(folder)] if base else [])]
    paths = [path for model in models for path in typed(model, folder)]
    (folder / "models.txt").write_text("\n".join(map(str, paths)))


def typed(model: Path, folder: Path) -> Iterator[Path]:
    """The model in each precision."""
    from mal_trt.calibration.graph import load_onnx, set_contract
    from mal_trt.calibration.half import to_half
    from mal_trt.calibration.output import save as write
    from mal_trt.calibration.quantize import choose, quantize, usual_groups

    proto, contract, path = load_onnx(model)
    yield path
    graph = to_half(proto)
    chosen = choose(graph, usual_groups(graph), str(path))
    for precision in PRECISIONS[1:]:
        if precision == "int8":
            graph = quantize(graph, chosen, {layer.name: 8.0 for layer in chosen})
        set_contract(graph, replace(contract, precision=precision))
        write(graph, folder / f"{path.stem}.{precision}.onnx")
        yield folder / f"{path.stem}.{precision}.onnx"


def build(model: Path, folder: Path, flavor: str) -> dict[str, Any]:
    """Figures of one build."""
    out = folder / "model.engine"
    command = [str(Path(sys.executable).parent / "mal-trt"), "build-engine", str(model), "-o", str(out)]
    command += ["--flavor", flavor]
    if flavor == "tensorrt":
        command += ["--timing-cache", str(folder / f"{model.stem}.cache")]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    inside = re.search(r"in ([\d.]+) s", text)
    if process.returncode or inside is None:
        raise SystemExit(f"error: {' '.join(command)} failed")
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "tensorrt_seconds": float(inside[1]),
        "peak_mb": round(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6),
        "engine_mb": round(out.stat().st_size / 1e6, 1),
        "with_cache": "with a timing cache" in text,
        "flavor": (manifest := read_manifest(out)).flavor,
        "version": manifest.version,
        "gpu": manifest.gpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--flavor", default="tensorrt-rtx", choices=["tensorrt", "tensorrt-rtx"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        worker = multiprocessing.get_context("spawn").Process(target=prepare, args=(folder, arguments.base))
        worker.start()
        worker.join()
        if worker.exitcode:
            raise SystemExit("error: the models could not be made")
        for path in map(Path, (folder / "models.txt").read_text().splitlines()):
            rounds = [build(path, folder, arguments.flavor) for _ in range(arguments.rounds)]
            first, warm = rounds[0], rounds[1:] or rounds
            row: dict[str, Any] = {"model": path.name.split(".")[0], "precision": read_contract(path).precision}
            row |= {"onnx_mb": round(path.stat().st_size / 1e6, 1), "first": first}
            row["later_seconds"] = round(median(r["seconds"] for r in warm), 2)
            row["later_tensorrt_seconds"] = round(median(r["tensorrt_seconds"] for r in warm), 2)
            rows.append(row)
            print(
                f"{row['model']} {row['precision']}: {first['seconds']:.1f} s, {row['later_seconds']:.1f} s again, "
                f"in TensorRT {first['tensorrt_seconds']:.1f} and {row['later_tensorrt_seconds']:.1f} s, of processor "
                f"time {first['cpu_seconds']:.1f} s; peak {first['peak_mb']} MB, engine {first['engine_mb']} MB",
                flush=True,
            )
    save(arguments.json, {"rounds": arguments.rounds, "builds": rows})


if __name__ == "__main__":
    main()
