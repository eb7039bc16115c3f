"""One stage of the GPU proof: its steps one after the other, each with a time limit of its own.

    . benchmarks/gpu/env.sh; python benchmarks/gpu/stage.py NAME --out OUT [--quick]

OUT/NAME.json is written after every step: exit codes, seconds, the end of each output, and what a step itself measured.
A step that fails or hangs costs the next ones nothing. Stages: driver, torch, onnxruntime, host, rtx. --quick: as short
as can be, for rehearsals without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
QUICK_PATIENCE = 4  # a rehearsal runs on slow processors, beside other tests
TAIL = 6000  # characters kept of a step's output
WORK = Path(os.environ.get("WORK", "/tmp/gpu"))  # not the repository, whose folders are not laid out as the package is
PYTHON = sys.executable
MAL = [PYTHON, "-m", "mal_trt.cli"]
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=3"]

STAGES = ("driver", "torch", "onnxruntime", "host", "rtx")

Step = tuple[str, int, list[str]]  # name, seconds at most, command


def steps(stage: str, work: Path, quick: bool) -> list[Step]:
    """What a stage runs."""
    bench = [str(ROOT / "benchmarks")]
    seconds = ["--seconds", "0.1", "--rounds", "1"] if quick else ["--seconds", "0.7", "--rounds", "2"]
    batches = "1,2" if quick else "1,8,32,64"
    base, half = work / "base.pth", work / "bundled.fp16.onnx"
    size = "128" if quick else "512"
    if stage == "driver":
        gpu_tests = [str(ROOT / "tests" / "gpu" / name) for name in ("test_driver.py", "test_kernels.py")]
        memcheck = [PYTHON, str(HERE / "memcheck.py"), "--", *PYTEST, "-x", "-m", "gpu", gpu_tests[1]]
        return [
            ("nvidia-smi", 10, ["nvidia-smi", "-q", "-d", "CLOCK,MEMORY,POWER"]),
            ("doctor", 20, [*MAL, "doctor"]),
            ("tests", 50, [*PYTEST, "-m", "gpu", *gpu_tests]),
            ("memcheck", 40, memcheck),
        ]
    if stage == "torch":
        field = [PYTHON, bench[0] + "/mean_field_speed.py", "--device", "cuda", "--json", str(work / "field.json")]
        return [
            ("eager", 30, [PYTHON, str(HERE / "yardstick.py"), "--size", size, "--batch", batches]),
            (
                "compiled",
                50,
                [PYTHON, str(HERE / "yardstick.py"), "--size", size, "--batch", batches[-2:], "--compile"],
            ),
            ("mean_field", 20, field),
        ]
    if stage == "onnxruntime":
        cuda = ["--device", "cpu" if quick else "cuda"]
        return [
            ("parity", 40, [PYTHON, str(HERE / "parity.py"), "--model", "bundled", *cuda]),
            ("export_half", 25, [*MAL, "export", "bundled", "-o", str(half), "--precision", "fp16"]),
            (
                "bundled",
                40,
                [
                    *MAL,
                    "benchmark",
                    "--model",
                    "bundled",
                    *cuda,
                    "--batch",
                    batches,
                    *seconds,
                    "--json-out",
                    str(work / "ort_bundled.json"),
                ],
            ),
            ("leak", 40, [PYTHON, str(HERE / "leak.py"), *cuda, "--batches", "20" if quick else "2000"]),
            ("random_base", 20, [PYTHON, bench[0] + "/random_base.py", "--size", size, "--out", str(base)]),
            (
                "export_base",
                60,
                [*MAL, "export", str(base), "-o", str(work / "base.fp16.onnx"), "--precision", "fp16"],
            ),
            (
                "base",
                40,
                [
                    *MAL,
                    "benchmark",
                    "--model",
                    str(work / "base.fp16.onnx"),
                    *cuda,
                    "--batch",
                    batches,
                    *seconds,
                    "--json-out",
                    str(work / "ort_base.json"),
                ],
            ),
            (
                "cpu",
                25,
                [
                    *MAL,
                    "benchmark",
                    "--model",
                    "bundled",
                    "--device",
                    "cpu",
                    "--batch",
                    "1,8",
                    *seconds,
                    "--json-out",
                    str(work / "cpu_bundled.json"),
                ],
            ),
        ]
    if stage == "host":
        shorter = ["--device", "cpu", "--copies", "1", *seconds] if quick else []
        return [("host_pipeline", 45, [PYTHON, str(HERE / "host.py"), *shorter])]
    if stage == "rtx":
        gpu_tests = [str(ROOT / "tests" / "gpu" / name) for name in ("test_engines.py", "test_label.py")]
        engine, base_engine = work / "bundled.engine", work / "base.engine"
        leak = [PYTHON, str(HERE / "leak.py"), "--model", str(engine), "--batches", "300", "--json"]
        built = ["--flavor", "tensorrt-rtx", "--precision", "fp16", "--batch", "1,32,64"]
        return [
            (
                "targets",
                45,
                [
                    PYTHON,
                    bench[0] + "/rtx_targets.py",
                    "--model",
                    str(half),
                    "--targets",
                    "CURRENT,SM80,SM89",
                    "--json",
                    str(work / "rtx_targets.json"),
                ],
            ),
            ("build", 30, [*MAL, "build-engine", "bundled", "-o", str(engine), *built]),
            (
                "bundled",
                40,
                [
                    *MAL,
                    "benchmark",
                    "--model",
                    str(engine),
                    "--batch",
                    batches,
                    *seconds,
                    "--json-out",
                    str(work / "rtx_bundled.json"),
                ],
            ),
            # A runtime that captures graphs anew whenever the buffers change would show here, not with fixed buffers.
            ("buffers", 15, [*leak, "leak_rtx.json"]),
            ("buffers_without_graphs", 15, ["env", "MAL_TRT_GRAPHS=0", *leak, "leak_rtx_without_graphs.json"]),
            ("build_base", 50, [*MAL, "build-engine", str(work / "base.fp16.onnx"), "-o", str(base_engine), *built]),
            (
                "base",
                40,
                [
                    *MAL,
                    "benchmark",
                    "--model",
                    str(base_engine),
                    "--batch",
                    batches,
                    *seconds,
                    "--json-out",
                    str(work / "rtx_base.json"),
                ],
            ),
            ("tests", 50, [*PYTEST, "-x", "-m", "gpu", *gpu_tests]),
        ]
    raise SystemExit(f"error: no stage {stage!r}; there are {', '.join(STAGES)}")


def attempt(name: str, limit: int, command: list[str]) -> dict[str, Any]:
    """Run one step; never raises."""
    began = time.monotonic()
    code: int | str | None
    with tempfile.TemporaryFile() as written:  # not a pipe, which a process that outlives the step would hold open
        try:
            process = subprocess.Popen(
                command, cwd=WORK, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
            )
            code = process.wait(limit)
        except OSError as error:
            code = None
            written.write(str(error).encode())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = "timed out"
        written.seek(0)
        output = written.read().decode(errors="replace")
    seconds = round(time.monotonic() - began, 1)
    print(f"== {name}: {code} after {seconds} s\n{output[-1200:]}", flush=True)
    return {"step": name, "exit": code, "seconds": seconds, "output": output[-TAIL:]}


def measured(work: Path) -> dict[str, Any]:
    """What the steps left in WORK, by file name. A file cut short by a step's time limit is left out."""
    found = {}
    for file in sorted(work.glob("*.json")):
        with suppress(OSError, ValueError):
            found[file.stem] = json.loads(file.read_text())
    return found


def about() -> dict[str, Any]:
    """Card, driver, clocks and versions."""
    wanted = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,compute_cap"
    try:
        asked = ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        answer = ""
    gpu = dict(zip(wanted.split(","), answer.split(", "), strict=False)) if answer else None
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"gpu": gpu, "python": platform.python_version(), "when": when, "cores": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"stage": arguments.stage, **about(), "steps": []}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path, part = arguments.out / f"{arguments.stage}.json", arguments.out / f".{arguments.stage}.part"
    for name, limit, command in steps(arguments.stage, arguments.work, arguments.quick):
        if arguments.quick and "base" in name:  # a ViT-Base is nothing for a CPU
            continue
        step = (name, limit * (QUICK_PATIENCE if arguments.quick else 1), command)
        result["steps"].append(attempt(*step))
        result["measured"] = measured(arguments.work)
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(path)  # whole, whenever the machine's time is up


if __name__ == "__main__":
    main()
