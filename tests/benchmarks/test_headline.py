"""`sh benchmarks/headline.sh`: what is compared, how a stopped measurement goes on, and the table that comes of it."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"
PHOTOS, BOXES = ROOT / "examples" / "photos", ROOT / "examples" / "boxes.json"

sys.path.append(str(SCRIPTS))  # not per test: their classes must stay the same
import cells as cells_module
import contenders
import headline
import scaling
from cells import Cells

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.labelling.run import label
from mal_trt.measure.metrics import mask_iou

FACTS = {"data": "some", "threads": 2}


def child(text: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, json, pathlib, time\nout = pathlib.Path(sys.argv[-1])\n{text}"]


def test_a_cell_is_kept_and_not_measured_again(tmp_path: Path) -> None:
    path, counter = tmp_path / "cells.json", tmp_path / "counter"
    command = child(f"open({str(counter)!r}, 'a').write('x')\nout.write_text(json.dumps(dict(boxes=3)))")
    for _ in range(2):
        cells = Cells(path, FACTS)
        found = cells.measure("one 0", command, 60)
        assert found is not None and found["boxes"] == 3
    assert counter.read_text() == "x"
    written = json.loads(path.read_text())
    assert written["cells"]["one 0"]["boxes"] == 3 and written["threads"] == 2 and "date" in written
    Cells(path, FACTS, fresh=True).measure("one 0", command, 60)
    assert counter.read_text() == "xx"


@pytest.mark.parametrize(
    ("text", "limit", "reason"),
    [
        ("out.write_text(json.dumps(dict(error='not installed: torch')))", 60, "not installed: torch"),
        ("raise SystemExit('it broke')", 60, "ended with 1: it broke"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 60, "ended with -9: it said nothing"),
        ("time.sleep(60)", 0.5, "not finished after 0 s"),
    ],
)
def test_one_that_fails_costs_the_others_nothing(tmp_path: Path, text: str, limit: float, reason: str) -> None:
    cells = Cells(tmp_path / "cells.json", FACTS)
    assert cells.measure("bad 0", child(text), limit) is None
    assert cells.failed == {"bad 0": reason}
    assert cells.measure("good 0", child("out.write_text('{}')"), 60) is not None
    again = Cells(tmp_path / "cells.json", FACTS)
    assert list(again.cells) == ["good 0"]  # what failed is tried again


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    """Such as the compilers of `torch.compile`."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    text = """import subprocess
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
out.write_text(json.dumps(dict(pid=subprocess.Popen(["sleep", "600"], **quiet).pid)))"""
    started = Path(f"/proc/{cells_module.run(child(text), 60)['pid']}/stat")
    for _ in range(100):
        if not started.exists() or started.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it goes on")


def test_another_measurement_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    Cells(path, FACTS).save()
    with pytest.raises(SystemExit, match="other threads; give --fresh"):
        Cells(path, {**FACTS, "threads": 1})
    path.write_text("{")
    with pytest.raises(SystemExit, match="cannot be read"):
        Cells(path, FACTS)
    path.write_text("[]")
    with pytest.raises(SystemExit, match="not a file of this measurement"):
        Cells(path, FACTS)


def test_nothing_begins_when_the_time_is_over(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "cells.json", FACTS, seconds=-1)
    assert cells.late and cells.measure("one 0", child("out.write_text('{}')"), 60) is None
    assert not cells.cells and not cells.failed


def test_peak_memory_is_this_process_alone() -> None:
    """In a process of its own: what ran before in this one may have needed more."""
    code = "import cells; low = cells.peak_mb(); held = bytearray(b'1') * 200_000_000; print(low, cells.peak_mb())"
    folder = Path(cells_module.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    low, high = map(float, done.stdout.split())
    assert low < 150 and 200 < high < 400


def cell(speed: float, p50: float = 10.0, **more: Any) -> dict[str, Any]:
    figures = {"boxes_per_s": speed, "p50_ms": p50, "p99_ms": 1234.5, "peak_mb": 1500, "first_mask_s": 2.0}
    return {**figures, "facts": {"onnxruntime": "1.2.3-x"}, **more}


MEASURED: dict[str, Any] = {
    **{"data": "coco", "boxes": 1233, "pictures": 150, "threads": 2, "date": "2026-11-29"},
    "machine": {"cpu": "A processor", "cores": 2},
    "missing": {"openvino": "not installed: openvino", "label-cuda": "no GPU", "label-rtx": "no GPU"},
    "cells": {
        **{f"label {turn}": cell(speed, miou=0.72134) for turn, speed in enumerate((90.0, 110.0, 123.4))},
        **{f"grabcut {turn}": cell(8.0, miou=0.5) for turn in range(3)},
        "eager 0": cell(115.0, miou=0.71),
        "label-openvino 0": cell(130.0, miou=0.7),
    },
}


MEASURED["cells"]["label-openvino 0"]["facts"]["precision"] = "bf16"


def test_the_table() -> None:
    lines = headline.table(MEASURED).splitlines()
    assert lines[0].endswith("| first mask after | mIoU |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| **mal-trt**, OpenVINO (bf16)",
        "| PyTorch, eager",
        "| **mal-trt**, ONNX Runtime",
        "| GrabCut (OpenCV)",
    ]
    assert lines[4] == ("| **mal-trt**, ONNX Runtime | 110 (90 to 123) | 10 ms | 1,234 ms | 1,500 MB | 2.0 s | .721 |")
    text = "\n".join(lines[6:])
    assert "1,233 boxes on 150 pictures (coco), 2 threads, 3 rounds" in text and "onnxruntime 1.2.3;" in text
    assert "Not measured, not installed: openvino: OpenVINO, plain script." in text
    assert "Not measured, no GPU: mal-trt, ONNX Runtime on the GPU; mal-trt, TensorRT-RTX." in text


def test_the_table_without_drawn_masks() -> None:
    bare = {**MEASURED, "cells": {"label 0": cell(1.0)}}
    assert headline.table(bare).splitlines()[0].endswith("| first mask after |")
    judged = {**MEASURED, "cells": {"label 0": cell(1.0, points=0.943)}}
    assert headline.table(judged).splitlines()[0].endswith("| points right |")


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    paper = tmp_path / "README.md"
    paper.write_text("before\n<!-- some -->\nold\n<!-- /some -->\nafter\n")
    cells_module.write_between(paper, "some", "new\n")
    assert paper.read_text() == "before\n<!-- some -->\nnew\n<!-- /some -->\nafter\n"
    with pytest.raises(SystemExit, match="has no lines <!-- other -->"):
        cells_module.write_between(paper, "other", "new\n")
    assert "new" in paper.read_text()


@pytest.mark.parametrize(("name", "paper"), [("headline", "README.md"), ("scaling", "benchmarks/README.md")])
def test_papers_have_the_table_that_was_measured(name: str, paper: str) -> None:
    """Nothing before it was measured; afterwards what the results say."""
    results = SCRIPTS / "results" / f"{name}.json"
    table = {"headline": headline.table, "scaling": scaling.table}[name]
    expected = table(json.loads(results.read_text())) if results.exists() else ""
    text = (ROOT / paper).read_text(encoding="utf-8")
    found = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->\n", text, re.S)
    assert found is not None and found[1].strip() == expected.strip()


def given(**more: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"data": None, "images": None, "boxes": None, "count": None, **more})


def test_what_is_labelled_by_default(tmp_path: Path) -> None:
    name, images, boxes, points = headline.sample(given(), tmp_path)
    document = json.loads(boxes.read_text())
    assert name == "example photos" and points == headline.POINTS and len(document["annotations"]) == 16 * 21
    assert {image["file_name"] for image in document["images"]} <= {path.name for path in images.iterdir()}


def test_drawn_masks_are_kept_and_crowds_left_out(tmp_path: Path) -> None:
    document = json.loads(BOXES.read_text())
    first, second, *_ = document["annotations"]
    first["segmentation"] = [[1, 1, 50, 1, 50, 50]]
    second["iscrowd"] = 1
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps(document))
    folder = tmp_path / "made"
    folder.mkdir()
    _, _, boxes, points = headline.sample(given(images=PHOTOS, boxes=path), folder)
    found = {record["id"]: record for record in json.loads(boxes.read_text())["annotations"]}
    assert points is None and second["id"] not in found and found[first["id"]]["segmentation"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> contenders.Task:
    """Three boxes of a photo; the last batch of one box."""
    folder = tmp_path_factory.mktemp("few")
    document = json.loads(BOXES.read_text())
    photo = document["images"][1]
    document["images"] = [photo]
    document["annotations"] = [r for r in document["annotations"] if r["image_id"] == photo["id"]][:3]
    path = folder / "few.json"
    path.write_text(json.dumps(document))
    return contenders.Task(PHOTOS, path, "bundled", 1, folder)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("eager", "compiled")]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", *SLOW])
def test_a_plain_script_draws_what_label_draws(
    name: str, few: contenders.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the sharpening by colour, which a plain script does not have."""
    needs = {"openvino": "openvino", "eager": "torch", "compiled": "torch"}
    if name in needs:
        package = pytest.importorskip(needs[name])
    if name == "compiled":  # traced, but by no C++ compiler, which takes minutes
        monkeypatch.setattr(package, "compile", partial(package.compile, backend="eager"))
    monkeypatch.setattr(contenders, "BATCH", 2)
    _, masks = contenders.CONTENDERS[name][2](few).all()
    out = few.folder / f"{name}.json"
    label(few.images, few.boxes, out=out, device="cpu", refine="none", threads=1, progress=False)
    expected = {r["id"]: r["segmentation"] for r in json.loads(out.read_text())["annotations"]}
    assert masks.keys() == expected.keys() and len(masks) == 3
    assert min(mask_iou(masks[key], expected[key]) for key in masks) > 0.97


def test_batches_have_the_shapes_and_strides_of_the_warm_up(
    few: contenders.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise torch.compile compiles once more while the clock runs."""
    monkeypatch.setattr(contenders, "BATCH", 2)
    seen = []

    def logits(crops: np.ndarray) -> np.ndarray:
        seen.append((crops.shape[1:], crops.strides))
        return np.zeros((len(crops), 48, 48), np.float32)

    contenders.Plain(few, logits, contenders.contract(few)[1], {}).all()
    assert len(seen) == 3 and len(set(seen)) == 1


def test_figures_of_a_contender(few: contenders.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cells_module.BEGAN, "0")
    figures, masks = contenders.measure("label", few, 4)
    assert figures["boxes"] == len(masks) == 3 and figures["facts"]["provider"] == "CPUExecutionProvider"
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] and figures["boxes_per_s"] > 0 and figures["peak_mb"] > 20


def test_quality_is_that_of_the_drawn_masks(few: contenders.Task, tmp_path: Path) -> None:
    document = json.loads(few.boxes.read_text())
    height, width = document["images"][0]["height"], document["images"][0]["width"]
    square = encode_rle(LocalMask(10, 10, np.ones((20, 20), bool)), height, width)
    half = encode_rle(LocalMask(10, 10, np.ones((20, 10), bool)), height, width)
    first, second = document["annotations"][:2]
    first["segmentation"] = second["segmentation"] = square
    second["category_id"] = first["category_id"]
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps(document))
    points = tmp_path / "points.json"
    sides = {"inside": [[12, 12], [25, 12]], "outside": [[0, 0], [12, 25]]}
    points.write_text(json.dumps({"points": [{"annotation_id": second["id"], **sides}]}))
    drawn = {first["id"]: square, second["id"]: half}
    assert contenders.quality(drawn, path, points) == {"miou": 0.75, "points": 0.5}


def test_a_missing_package_is_named(few: contenders.Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    out = tmp_path / "figures.json"
    command = ["contenders.py", "grabcut", "--images", str(few.images), "--boxes", str(few.boxes), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    contenders.main()
    assert json.loads(out.read_text()) == {"error": "not installed: opencv-python-headless"}
