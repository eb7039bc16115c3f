"""The table of the README: this program against what people would use instead, on the same boxes, in turns.

    python benchmarks/headline.py [--data DIR | --images PICTURES --boxes BOXES] [--count 600] [--rounds 3]
        [--threads N] [--only NAME ...] [--stop-after SECONDS] [--fresh] [--json FILE] [--write PAPER ...]

Without data: the example photos, 16 times over, judged by the points of examples/points.json. DIR holds val.json (COCO)
and images-00.tar; otherwise pictures and boxes in any form that mal-trt reads, with drawn masks for an mIoU. What is
measured of each: `contenders.py`. Each runs in a process of its own, one after the other, round by round; medians
count, and the spread of the speed is given. One that fails, or is not installed, is named with its reason. Each cell is
kept at once: the same command again goes on where it was stopped. --write: put the table between the marks of a paper.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from cells import Cells, figure, line, plural, write_between
from contenders import CONTENDERS

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import MalTrtError
from mal_trt.base.gpu import find_gpus
from mal_trt.base.processor import usable_cores
from mal_trt.formats.boxes import as_boxes
from mal_trt.formats.images import open_images
from mal_trt.measure.benchmark_data import choose_samples
from mal_trt.measure.hardware import hardware, one_line

HERE = Path(__file__).resolve().parent
POINTS = HERE.parent / "examples" / "points.json"
QUALITY = {"miou": "mIoU", "points": "points right"}  # as the cells say it, and as the table does


def sample(arguments: argparse.Namespace, folder: Path) -> tuple[str, str | Path, Path, Path | None]:
    """What to label: its name, pictures, a COCO document of usable boxes, and points if that is all there is."""
    images, boxes = arguments.images, arguments.boxes
    if arguments.data is not None:
        images, boxes = arguments.data / "images-00.tar", arguments.data / "val.json"
    drawn = False
    if boxes is not None:
        given = as_boxes(boxes)
        images = given.home() if images is None else images
        drawn = any(record.get("segmentation") for record in given.document(open_images(images))["annotations"])
    chosen = choose_samples(images, None if drawn else boxes, boxes if drawn else None, arguments.count, folder)
    document = chosen.boxes.document(open_images(chosen.images))
    document["annotations"] = [record for record in document["annotations"] if not record.get("iscrowd")]
    path = folder / "usable.json"
    path.write_text(json.dumps(document))
    if boxes is None:
        return chosen.name, chosen.images, path, POINTS if arguments.count is None else None
    return (arguments.data or Path(boxes)).resolve().name, chosen.images, path, None


def table(found: dict[str, Any]) -> str:
    """The measurement in Markdown: a row for each contender, the fastest first; below it what was not measured."""
    rows, missing = [], {}
    for name, (title, _, _) in CONTENDERS.items():
        rounds = rounds_of(found, name)
        if rounds:
            rows.append((median(cell["boxes_per_s"] for cell in rounds), title, rounds))
        elif name in found["missing"]:
            missing.setdefault(found["missing"][name], []).append(title.replace("**", ""))
    judged = next((key for key in QUALITY for _, _, rounds in rows if key in rounds[0]), None)
    head = [
        "",
        "boxes/s",
        "one box, p50",
        "p99",
        "peak memory",
        "first mask after",
        *([QUALITY[judged]] if judged else []),
    ]
    lines = [line(head), line(["---"] * len(head))]
    for speed, title, rounds in sorted(rows, key=lambda row: -row[0]):
        speeds = [cell["boxes_per_s"] for cell in rounds]
        lines.append(
            line(
                [
                    title + precision(rounds[0]),
                    f"{figure(speed)} ({figure(min(speeds))} to {figure(max(speeds))})",
                    *(f"{figure(median(cell[key] for cell in rounds))} ms" for key in ("p50_ms", "p99_ms")),
                    f"{max(cell['peak_mb'] for cell in rounds):,} MB",
                    f"{rounds[0]['first_mask_s']:.1f} s",
                    *([f"{rounds[0][judged]:.3f}".lstrip("0")] if judged else []),
                ]
            )
        )
    versions = ", ".join(f"{name} {value}" for name, value in sorted(versions_of(found).items()))
    count = max((len(rounds) for _, _, rounds in rows), default=0)
    said = (
        f"{found['boxes']:,} boxes on {found['pictures']} pictures ({found['data']}), "
        f"{plural(found['threads'], 'thread')}, {plural(count, 'round')} in turns, in brackets the slowest and the "
        f"fastest. {one_line(found['machine'])}; {versions}; {found['date']}."
    )
    lost = [f"Not measured, {reason}: {'; '.join(titles)}." for reason, titles in missing.items()]
    return "\n".join([*lines, *(part for text in (said, *lost) for part in ("", text))]) + "\n"


def precision(cell: dict[str, Any]) -> str:
    """What the network computed in, where that is not plain FP32."""
    found = cell["facts"].get("precision", "f32")
    return "" if found in ("f32", "fp32") else f" ({found})"


def rounds_of(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The cells of one contender, in order."""
    return [cell for key, cell in sorted(found["cells"].items()) if key.rpartition(" ")[0] == name]


def versions_of(found: dict[str, Any]) -> dict[str, str]:
    """Of every package that a contender named."""
    kept = {"mal_trt", "onnxruntime", "openvino", "torch", "opencv"}
    return {k: v.partition("-")[0] for cell in found["cells"].values() for k, v in cell["facts"].items() if k in kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with val.json and images-00.tar")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--boxes", type=Path)
    parser.add_argument("--count", type=int, help="boxes, spread evenly; default: all")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--calls", type=int, default=200, help="of one box each, for the latency")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="seconds for one contender in one round")
    parser.add_argument("--stop-after", type=float, help="begin nothing more after so many seconds")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS)
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "headline.json")
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAPER")
    arguments = parser.parse_args()
    if arguments.data is not None and (arguments.images or arguments.boxes):
        parser.error("give either --data or --images and --boxes")
    names = arguments.only or list(CONTENDERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "compiled")  # so that the first round compiles
        try:
            data, images, boxes, points = sample(arguments, folder)
            model = file_sha256(resolve_model(arguments.model))
        except MalTrtError as error:
            sys.exit(f"error: {error}")
        document = json.loads(boxes.read_text())
        machine = hardware()
        load = machine.pop("load", None)
        facts = {
            "data": data,
            "boxes": len(document["annotations"]),
            "pictures": len({record["image_id"] for record in document["annotations"]}),
            "boxes_sha256": file_sha256(boxes),
            "model_sha256": model,
            "cpu": f"{machine['cpu']}, {machine['cores']} cores",
            "threads": arguments.threads,
            "calls": arguments.calls,
        }
        cells = Cells(arguments.json, facts, arguments.stop_after, arguments.fresh)
        more = {"machine": {**machine, "load": load}, "missing": {}}
        gpu = find_gpus()
        for number in range(arguments.rounds):
            for name in names:
                if CONTENDERS[name][1] and not gpu.gpus:
                    more["missing"][name] = f"no GPU ({gpu.problem})"
                    continue
                command = [sys.executable, HERE / "contenders.py", name, "--images", images, "--boxes", boxes]
                command += ["--model", arguments.model, "--threads", arguments.threads, "--calls", arguments.calls]
                command += ["--points", points] if points is not None else []
                if name not in more["missing"]:
                    cells.measure(f"{name} {number}", command, arguments.limit)
                    if f"{name} {number}" in cells.failed:
                        more["missing"][name] = cells.failed[f"{name} {number}"]
    cells.save(**more)
    if cells.late:
        print("stopped for want of time; the same command goes on")
    text = table(json.loads(arguments.json.read_text()))
    print(text)
    for paper in arguments.write:
        write_between(paper, "headline", text)


if __name__ == "__main__":
    main()
