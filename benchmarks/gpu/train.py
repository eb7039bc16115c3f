"""The bundled model's training on one GPU in the time there is: teachers side by side, targets, then the student.

    . benchmarks/gpu/env.sh; python benchmarks/gpu/train.py --data PACKED --out OUT --seconds 400

PACKED is pack_data.py's folder. OUT gets student.pth (a checkpoint of the EMA weights alone, small enough to be sent
back), train.json and the logs. Students: the chain's own and one without pasted objects, side by side.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

WORK = Path(os.environ.get("WORK", "/tmp/gpu")) / "train"
TEACHER_SAMPLES = 25_000
BATCH = 128
SPEED_STEPS = 60
RESERVE = 25.0  # seconds for starting, saving and sending


def chain(data: Path, *more: str) -> list[str]:
    """The command of the chain, for one stage on the GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [
        *(sys.executable, "-m", "mal_trt.export.bundled", "--data", str(data.resolve()), "--out", str(WORK)),
        *("--device", device, "--prior-model", "bundled", "--ensemble", *more),
    ]


def together(commands: dict[str, list[str]], out: Path) -> dict[str, Any]:
    """Run commands side by side, away from the sources, which would hide the package; seconds and exit codes."""
    began = time.monotonic()
    logs = {name: (out / f"{name}.log").open("w") for name in commands}
    running = {
        name: subprocess.Popen(command, stdout=logs[name], stderr=subprocess.STDOUT, cwd=WORK)
        for name, command in commands.items()
    }
    codes = {name: process.wait() for name, process in running.items()}
    return {"seconds": round(time.monotonic() - began, 1), "exit": codes}


def slim(checkpoint: Path, path: Path) -> None:
    """The teacher's weights alone, FP32, as a checkpoint of ours."""
    from mal_trt.training.checkpoint import read_checkpoint, save_checkpoint

    source = read_checkpoint(checkpoint)
    assert source.config is not None and source.teacher is not None
    save_checkpoint(path, source.config, student=source.teacher, meta=source.meta)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--teacher-samples", type=int, default=TEACHER_SAMPLES)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--speed-steps", type=int, default=SPEED_STEPS)
    arguments = parser.parse_args()
    began, out = time.monotonic(), arguments.out
    WORK.mkdir(parents=True, exist_ok=True)
    notes: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count()}

    def note(name: str, value: Any) -> None:
        notes[name] = value
        print(name, value, f"at {time.monotonic() - began:.0f} s", flush=True)
        (out / "train.json").write_text(json.dumps(notes, indent=1) + "\n")

    from mal_trt.export.bundled import RUNS, sized, sources, student_config, targets_path, thinned
    from mal_trt.training.pictures import read_training_boxes

    cores = os.cpu_count() or 2
    note("priors", together({"priors": chain(arguments.data, "--stage", "priors", "--threads", str(cores))}, out))
    threads = str(max(2, cores // len(RUNS) + 1))
    samples = ("--samples", str(arguments.teacher_samples), "--threads", threads)
    stages = {f"run{n}": chain(arguments.data, "--stage", f"run{n}", *samples) for n in range(len(RUNS))}
    note("teachers", together(stages, out))
    note("targets", together({"targets": chain(arguments.data, "--stage", "targets1", "--threads", str(cores))}, out))
    if (trusted := targets_path(WORK).with_suffix(".json")).exists():
        note("trusted", json.loads(trusted.read_text()))

    images, boxes = sources(arguments.data)
    boxes = thinned(boxes, WORK)
    rows = read_training_boxes(images, boxes, 256.0, 1e10)
    grown = arguments.batch / 32
    student = student_config(images, boxes, WORK)
    student = replace(
        student,
        batch=arguments.batch,
        lr=student.lr / grown**0.5,
        teacher_momentum=0.98,
        device="cuda" if torch.cuda.is_available() else "cpu",
        workers=max(1, cores // 2 - 1),
        cudnn_benchmark=True,
        cudnn_deterministic=False,
        picture_steps=0,
        log_steps=max(1, arguments.speed_steps // 3),
        checkpoint_minutes=0.7,
        checkpoint_epochs=None,
    )
    variants = {"student": student, "plain": replace(student, out=WORK / "plain", paste=0.0, seed=12)}
    files = {}
    for name, config in variants.items():
        speed = replace(sized(config, rows, arguments.speed_steps * config.batch), out=WORK / f"{name}-speed")
        files[name], files[f"{name}-speed"] = WORK / f"{name}.pickle", WORK / f"{name}-speed.pickle"
        torch.save(speed, files[f"{name}-speed"])
    here = [sys.executable, __file__.replace("train.py", "run_config.py")]
    note("speed", together({n: [*here, str(files[f"{n}-speed"])] for n in variants}, out))
    rates = {}
    for name in variants:
        rows_read = list(csv.DictReader((WORK / f"{name}-speed" / "log.csv").open()))
        rates[name] = float(rows_read[-1]["boxes_per_s"])
    note("boxes_per_s", rates)
    left = arguments.seconds - (time.monotonic() - began) - RESERVE
    for name, config in variants.items():
        samples_now = int(min(rates.values()) * left * 0.9)
        torch.save(sized(config, rows, samples_now, warmup_steps=150), files[name])
        note(f"{name}_samples", samples_now)
    note("students", together({n: [*here, str(files[n])] for n in variants}, out))
    for name, config in variants.items():
        if (config.out / "last.pth").exists():
            slim(config.out / "last.pth", out / f"{name}.pth")
    note("seconds", round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
