"""Results of the stages as one JSON file and as Markdown tables.

    python benchmarks/gpu/report.py OUT [--json benchmarks/results/gpu-NAME.json]

OUT holds what stage.py wrote, as far as it came. Every step of every stage gets a row: what never ran, failed or timed
out is said, not left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stage import STAGES, steps

# What a benchmark's file stands for.
FILES = {
    "ort_bundled": "bundled, ONNX Runtime on the GPU",
    "ort_base": "ViT-Base 512, ONNX Runtime on the GPU",
    "cpu_bundled": "bundled, ONNX Runtime on the CPU",
    "rtx_bundled": "bundled, TensorRT-RTX",
    "rtx_base": "ViT-Base 512, TensorRT-RTX",
}


def read(folder: Path) -> dict[str, Any]:
    """Stage -> its document; the ones whose file is missing or cut short are None."""
    found: dict[str, Any] = {}
    for name in STAGES:
        try:
            found[name] = json.loads((folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            found[name] = None
    return found


def step_rows(stages: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(stage, step, how it ended, seconds) of every step there is."""
    for name, document in stages.items():
        done = {step["step"]: step for step in document["steps"]} if document else {}
        for step, _, _ in steps(name, Path(), False):
            one = done.get(step)
            if one is None:
                yield name, step, "not run", "-"
            else:
                ended = {0: "passed", None: "could not start"}.get(one["exit"], f"failed ({one['exit']})")
                yield name, step, ended, f"{one['seconds']:g}"


def speed_rows(stages: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, boxes/s of the network alone by batch, boxes/s of `label`) of every benchmark that ought to be there."""
    measured: dict[str, Any] = {}
    for document in stages.values():
        measured |= document.get("measured", {}) if document else {}
    for file, what in FILES.items():
        models = measured.get(file, {}).get("models", [])
        if not models:
            yield what, "not measured", "not measured"
        for model in models:
            network = ", ".join(f"{row['batch']}: {row['boxes_per_s']:,.0f}" for row in model.get("network", []))
            label = (model.get("label") or {}).get("boxes_per_s")
            yield what, network or "not measured", f"{label:,.0f}" if label else "not measured"


def host_rows(stages: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, where crops and masks are made, boxes/s) of the runtime's own side."""
    measured = (stages.get("host") or {}).get("measured", {}).get("host_pipeline")
    for row in measured or [{"what": "label", "crops": "-"}, {"what": "masker", "crops": "-"}]:
        speed = row.get("boxes_per_s")
        yield row["what"], row["crops"], f"{speed:,.0f}" if speed else "not measured"


def memory_line(stages: dict[str, Any]) -> str:
    """What compute-sanitizer found, calls that returned an error apart."""
    found = (stages.get("driver") or {}).get("measured", {}).get("memcheck")
    if not found or found["counted"] is None:
        return "memcheck: not measured"
    calls = ", ".join(f"{times} {name}" for name, times in found["calls"].items()) or "none"
    return f"memcheck: {found['memory_errors']} errors of memory; calls that returned an error: {calls}"


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--json", type=Path, help="also keep everything in this file")
    arguments = parser.parse_args()
    stages = read(arguments.out)
    if not any(stages.values()):
        raise SystemExit(f"error: {arguments.out}: holds no result of a stage ({', '.join(STAGES)})")
    about = next(document for document in stages.values() if document)
    gpu = about["gpu"] or {}
    card = gpu.get("name", "no GPU")
    print(f"{card}, driver {gpu.get('driver_version', '-')}, SM clock {gpu.get('clocks.sm', '-')} of at most ", end="")
    print(f"{gpu.get('clocks.max.sm', '-')}, {about['cores']} cores, Python {about['python']}, {about['when'][:10]}\n")
    print(table(("what", "boxes/s by batch", "`label`, boxes/s"), speed_rows(stages)), end="\n\n")
    print(table(("network skipped", "crops and masks", "boxes/s"), host_rows(stages)), end="\n\n")
    print(memory_line(stages), end="\n\n")
    print(table(("stage", "step", "ended", "s"), step_rows(stages)))
    if arguments.json:
        arguments.json.write_text(json.dumps(stages, indent=1) + "\n")


if __name__ == "__main__":
    main()
