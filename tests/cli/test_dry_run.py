"""--dry-run: what it says is what the run then does, and it leaves every file as it was."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import call
from mal_trt.cli.dry_run import about
from mal_trt.labelling.dry_run import _stretches

PAGES = Path(__file__).parents[2] / "docs" / "verbs"
SIDE = 200
BOXES = ((4, 4, 20, 20), (30, 10, 60, 50), (60, 60, 120, 110))  # small, medium, large


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """pictures/0.png to 14.png, each with a bright block in three boxes; boxes.json, in which one picture is missing
    and one box is no box."""
    (tmp_path / "pictures").mkdir()
    images, annotations = [], []
    for number in range(16):
        name = f"{number}.png"
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        pixels = np.random.default_rng(number).integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        for x, y, w, h in BOXES:
            pixels[y + 2 : y + h - 2, x + 2 : x + w - 2] = 255
            record = {"id": len(annotations), "image_id": number, "category_id": 1, "bbox": [x, y, w, h]}
            annotations.append(record)
        if number < 15:
            Image.fromarray(pixels).save(tmp_path / "pictures" / name)
    annotations.append({"id": 99, "image_id": 0, "category_id": 1, "bbox": [1, 1, -5, 5]})
    document = {"images": images, "categories": [{"id": 1, "name": "block"}], "annotations": annotations}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return tmp_path


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in folder.rglob("*")}


def data(folder: Path) -> tuple[object, ...]:
    return ("--images", folder / "pictures", "--boxes", folder / "boxes.json")


def forecast(folder: Path, temporary: Path, *words: object) -> dict[str, Any]:
    """What --dry-run says as JSON, once it is sure that it wrote nothing."""
    before = files(folder)
    done = call(*words, "--dry-run", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    left = [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")]  # PyTorch's own
    assert (files(folder), left, done.stderr) == (before, [], "")
    result: dict[str, Any] = json.loads(done.stdout)["result"]
    page = (PAGES / f"{words[0]}.md").read_text(encoding="utf-8").partition("With `--dry-run`: ")[2]
    assert [key for key in result if f"`{key}`" not in page] == []
    return result


def test_label_does_what_it_said(many: Path, model: Path, temporary: Path) -> None:
    out = many / "new" / "labels.json"
    options = ("--model", model, "--out", out, "--device", "cpu", "--threads", 1, "--batch", 4)
    words = ["label", *data(many), *options, "--overlay", many / "overlay"]
    said = forecast(many, temporary, *words)
    assert said["sizes"] == {"small": 15, "medium": 15, "large": 15}
    assert (said["total"], said["boxes"], said["pictures"], said["batch"]) == (49, 45, 15, 4)
    assert said["measured"] == said["boxes"]  # all of so few
    assert said["boxes_per_second"] == pytest.approx(said["measured"] / said["measured_seconds"])
    assert said["seconds"] == pytest.approx(said["measured_seconds"])
    assert (said["precision"], said["provider"]) == ("fp32", "CPUExecutionProvider")
    before = set(many.rglob("*"))
    did = json.loads(call(*words, "--json", "--quiet").stdout)["result"]
    assert (did["total"], did["labelled"], did["skipped"]) == (said["total"], said["boxes"], said["skipped"])
    made = {path for path in set(many.rglob("*")) - before if path.parent != many / "overlay"}
    assert made - {out.parent} == {Path(path) for path in said["writes"]}


def test_label_tells_people(many: Path, model: Path) -> None:
    words = ["label", *data(many), "--model", model, "--out", many / "l.json", "--device", "cpu", "--threads", 1]
    done = call(*words, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "would label 45 of 49 boxes (15 small, 15 medium, 15 large) on 15 pictures" in done.stdout
    assert "4 would be skipped:" in done.stdout and "boxes/s (measured on 45 boxes in" in done.stdout
    assert call(*words, "--dry-run", "--quiet").output == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--out", "boxes.json"], "exists and is never overwritten"),
        (["--out", "boxes.json/labels.json"], "cannot hold the output"),
        (["--resume"], "leave --resume out"),
        (["--overlay", "boxes.json"], "cannot hold the output"),
        (["--format", "none"], "none"),
    ],
)
def test_label_refuses_what_the_run_would_refuse(
    many: Path, model: Path, options: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(many)
    before = files(many)
    done = call("label", *data(many), "--model", model, *options, "--dry-run")
    assert done.exit_code == 2 and says in done.stderr and done.stdout == ""
    assert files(many) == before


def test_a_damaged_picture_is_told(many: Path, model: Path, temporary: Path) -> None:
    path = many / "pictures" / "3.png"
    path.write_bytes(path.read_bytes()[:300])
    options = ("--model", model, "--out", many / "labels.json", "--device", "cpu", "--threads", 1)
    said = forecast(many, temporary, "label", *data(many), *options)
    assert sum(said["failed"].values()) == 3
    assert str(many / "labels.skipped.json") in said["writes"]


@pytest.mark.parametrize(("batches", "most"), [(3, 16), (100, 16), (17, 16), (1000, 403)])
def test_stretches_are_spread_evenly(batches: int, most: int) -> None:
    chosen = _stretches(range(batches), most)
    assert chosen[0] == 0 and chosen[-1] == batches - 1 and len(chosen) == len(set(chosen)) <= most
    assert len(chosen) > most - 4 or len(chosen) == batches or batches - most < 4
    gaps = [later - earlier for earlier, later in pairwise(chosen)]
    assert sum(gap > 1 for gap in gaps) <= 3


def test_calibrate_writes_nothing(many: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setattr("mal_trt.calibration.dry_run.BATCHES", 2)
    options = ("--crops", 32, "--check-crops", 12, "--threads", 1, "--cache", many / "cache.npz")
    said = forecast(many, temporary, "calibrate", "bundled", *data(many), "-o", many / "m.int8.onnx", *options)
    assert (sum(said["crops"].values()), sum(said["check_crops"].values())) == (32, 12)
    assert (said["precision"], said["to"], said["measured"]) == ("fp32", "int8", 16)
    assert sum(said["layers"].values()) > 10
    assert 0 < said["seconds_least"] < said["seconds_most"]
    assert {Path(path).name for path in said["writes"]} == {
        "m.int8.onnx",
        "m.int8.parity.npz",
        "m.int8.report.json",
        "cache.npz",
    }


def test_train_writes_nothing(many: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("mal_trt.training.dry_run.SECONDS", 0.2)
    network = ("--arch", "vit-deit-tiny/16", "--depth", 1, "--head-width", 16, "--crop-size", 64)
    run = ("--batch", 4, "--epochs", 2, "--min-area", 300, "--workers", 0, "--device", "cpu")
    words = ["train", *data(many), *network, *run, "--out", many / "run" / "here"]
    said = forecast(many, temporary, *words)
    assert (said["boxes"], said["pictures"], said["boxes_per_step"]) == (45, 15, 4)
    assert (said["steps_per_epoch"], said["steps"], said["done"], said["validations"]) == (11, 22, 0, 0)
    assert sum(said["skipped"].values()) == 4
    each = said["measured_seconds"] / said["measured"]
    assert said["seconds"] == pytest.approx(22 * each) and said["boxes_per_second"] == pytest.approx(4 / each)
    assert str(many / "run" / "here" / "last.pth") in said["writes"]
    shown = call(*words, "--dry-run")
    assert shown.exit_code == 0 and "22 steps of 4 boxes: 2 epochs of 11" in shown.stdout


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "about 0.4 s"), (59.6, "about 60 s"), (150, "about 2.5 min"), (7200, "about 2.0 h")],
)
def test_times_as_people_say_them(seconds: float, text: str) -> None:
    assert about(seconds) == text
