"""`label -e` and `evaluate -e`: an experiment spec decides, key=value changes it, an option beats both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("omegaconf")
pytest.importorskip("onnxruntime")

from command import call
from label_data import DataWriter, ModelWriter

Run = Callable[..., Any]


@pytest.fixture
def run(tiny_model: ModelWriter, data_set: DataWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb with -e spec.yaml, which names a model and boxes with drawn masks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tiny_model(weights="mixed")
    pictures, boxes = data_set()
    document = json.loads(boxes.read_text())
    for record in document["annotations"][1:]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    boxes.write_text(json.dumps(document))
    (tmp_path / "spec.yaml").write_text(
        f"results_dir: out\n"
        f"dataset: {{val_ann_path: {boxes}, val_img_dir: {pictures}}}\n"
        f"train: {{mask_thres: [0.5]}}\n"
        f"inference:\n  checkpoint: {model}\n  ann_path: {boxes}\n  img_dir: {pictures}\n"
        f"  label_dump_path: labels.json\n  load_mask: True\n  batch_size: 2\n"
        f"evaluate: {{checkpoint: {model}, use_teacher_test: False}}\n"
    )

    def with_spec(verb: str, *arguments: object, spec: str = "spec.yaml") -> Any:
        options = ("--device", "cpu", "--threads", 1)
        return call(verb, "-e", spec, *arguments, *options)

    return with_spec


def records(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(path).read_text())["annotations"]
    return found


@pytest.mark.parametrize("verb", ["label", "inference"])
def test_labels_lie_where_the_spec_says(run: Run, verb: str) -> None:
    done = run(verb)
    assert done.exit_code == 0, done.output
    whole = json.loads(Path("out/inference/labels.json").read_text())
    assert whole["info"] == {"description": "blobs", "year": 2024} and whole["categories"][0]["name"] == "blob"
    first, *others = whole["annotations"]
    for record in (first, *others):
        assert record["area"] == record["bbox"][2] * record["bbox"][3], "as the reference writes it"
        assert record["segmentation"]["size"] == [80, 120] and record["iscrowd"] == 0
    assert "iou" not in first and all(0.2 < record["iou"] < 1 for record in others)
    figures = json.loads(Path("out/inference/labels.run.json").read_text())["used"]
    assert (figures["batch"], figures["threshold"], figures["box area"]) == ("2", "(0.5, 0.5, 0.5)", "True")


def test_overrides_and_options(run: Run) -> None:
    done = run("label", "inference.label_dump_path=other.json", "results_dir=there", "inference.load_mask=false")
    assert done.exit_code == 0, done.output
    assert all("iou" not in record for record in records("there/inference/other.json"))
    done = run("label", "--out", "mine.json", "--mask-area", "--threshold", "0.6")
    assert done.exit_code == 0, done.output
    assert any(record["area"] != record["bbox"][2] * record["bbox"][3] for record in records("mine.json"))
    assert not Path("out").exists()


def test_evaluate_by_the_spec(run: Run) -> None:
    done = run("evaluate")
    assert done.exit_code == 0, done.output
    student = json.loads(Path("out/evaluate/results.json").read_text())
    assert student["count"] > 10 and student["miou"] > 0.5
    teacher = run("evaluate", "evaluate.use_teacher_test=true", "--json-out", "teacher.json")
    assert teacher.exit_code == 0, teacher.output
    assert json.loads(Path("teacher.json").read_text())["miou"] < student["miou"], "the opposite sign"


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("label", ["inference.ann_path=none.json"], "inference.ann_path: none.json: no such file or folder"),
        ("label", ["inference.checkpoint=none.pth"], "inference.checkpoint: none.pth: no such file"),
        ("label", ["inference.batch=3"], "inference.batch: no such field; did you mean inference.batch_size?"),
        ("label", ["photos"], "photos: expected key=value"),
        ("evaluate", ["dataset.val_img_dir=nowhere"], "dataset.val_img_dir: nowhere: no such file or folder"),
        ("evaluate", ["evaluate.use_flip_test=perhaps"], "evaluate.use_flip_test: "),
        ("evaluate", ["evaluate.checkpoint="], "spec.yaml: nothing says the model: give evaluate.checkpoint"),
    ],
)
def test_bad_input_is_one_line(run: Run, verb: str, arguments: list[str], message: str) -> None:
    done = run(verb, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_missing_spec(run: Run) -> None:
    done = run("label", spec="none.yaml")
    assert done.exit_code == 2 and done.stderr == "error: none.yaml: cannot be read (No such file or directory)\n"


@pytest.mark.parametrize("verb", ["label", "evaluate"])
def test_neither_boxes_nor_spec(verb: str) -> None:
    done = call(verb)
    assert done.exit_code == 2 and "--spec" in done.stderr and done.stderr.count("\n") == 1


def test_a_checkpoint_without_torch_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mal_trt.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    Path("base.pth").write_bytes(b"weights")
    for arguments in (["inference.checkpoint=base.pth"], ["--model", "base.pth"]):
        done = run("label", *arguments, "--quiet")
        assert done.exit_code == 1, done.output
        assert done.stderr.count("\n") == 1 and 'needs torch; run: pip install "mal-trt[export]"' in done.stderr
