"""The command: lean to start, one line per failure, its verbs end to end on a model made here."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from command import call
from mal_trt.cli import app

HEAVY = ("torch", "onnx", "timm", "onnxruntime", "numpy", "PIL", "pycocotools", "cv2", "rich")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = tuple(verb for verb, command in COMMANDS.items() if not command.hidden)


def label(scene: Path, model: Path, boxes: str = "boxes.json", *more: object) -> Any:
    out = ("--out", scene / "labels.json", "--device", "cpu", "--threads", 1)
    source = ("--images", scene / "pictures", "--boxes", scene / boxes, "--model", model)
    return call("label", *source, *out, *more)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mal_trt.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        f"sys.exit(', '.join(m for m in {HEAVY} if m in sys.modules) or 0)"
    )
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"mal-trt {verb}" in result.stdout or f"{verb} [OPTIONS]" in result.stdout


def test_version() -> None:
    result = call("--version")
    assert result.stdout == f"mal-trt {importlib.metadata.version('mal-trt')}\n"


def test_label(scene: Path, model: Path) -> None:
    sheet = scene / "new" / "sheet.png"
    result = label(scene, model, "boxes.json", "--overlay", scene / "overlay", "--sheet", sheet)
    assert result.exit_code == 0, result.output
    assert "1 of 1 boxes labelled" in result.stdout
    assert "CPUExecutionProvider" in result.stdout
    (annotation,) = json.loads((scene / "labels.json").read_text())["annotations"]
    assert annotation["area"] == pytest.approx(1200, rel=0.15)
    with Image.open(sheet) as picture:
        assert picture.width > 100
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_skips_are_counted_and_strict_fails(scene: Path, model: Path) -> None:
    result = label(scene, model, "bad.json", "--strict")
    assert result.exit_code == 1
    assert "1 of 2 boxes labelled" in result.stdout
    assert "1 skipped" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("error: 1 boxes skipped (--strict)")
    assert len(json.loads((scene / "labels.json").read_text())["annotations"]) == 1


def test_skips_alone_succeed(scene: Path, model: Path) -> None:
    assert label(scene, model, "bad.json").exit_code == 0


def test_second_run_without_resume(scene: Path, model: Path) -> None:
    assert label(scene, model, "boxes.json", "--quiet").output == ""
    before = (scene / "labels.json").read_bytes()
    result = label(scene, model)
    assert result.exit_code == 2
    assert one_line(result.stderr)
    assert (scene / "labels.json").read_bytes() == before


def test_missing_input_is_one_line(scene: Path, model: Path) -> None:
    result = label(scene, model, "nowhere.json")
    assert result.exit_code == 2
    assert one_line(result.stderr)
    assert "nowhere.json" in result.stderr


def test_labels_for_yolo(scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene)
    source = ("--images", scene / "pictures", "--boxes", scene / "boxes.json", "--model", model)
    done = call("label", *source, "--device", "cpu", "--threads", 1, "--format", "yolo")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("read 1 box of 1 class from a COCO document\nlabels: 1 of 1 boxes labelled")
    number, *shares = (scene / "labels" / "a.txt").read_text().split()
    assert number == "0" and len(shares) >= 8 and all(0 <= float(share) <= 1 for share in shares)
    again = call("evaluate", "--images", scene / "pictures", "--annotations", scene / "labels", "--model", model, "-q")
    assert again.exit_code == 0, again.output


def test_sheet_needs_overlay(scene: Path, model: Path) -> None:
    result = label(scene, model, "boxes.json", "--sheet", scene / "sheet.png")
    assert result.exit_code == 2
    assert "--overlay" in result.stderr
    assert not (scene / "labels.json").exists()


def test_a_sheet_is_checked_before_the_work(scene: Path, model: Path) -> None:
    photo = scene / "pictures" / "own.png"
    Image.new("RGB", (8, 8)).save(photo)
    before = photo.read_bytes()
    for sheet in (scene / "sheet.xyz", photo):
        result = label(scene, model, "boxes.json", "--overlay", scene / "overlay", "--sheet", sheet)
        assert result.exit_code == 2 and str(sheet) in result.stderr and result.stderr.count("\n") == 1
    assert photo.read_bytes() == before and not (scene / "overlay").exists()


def test_unwritable_sheet_is_one_line(scene: Path, model: Path) -> None:
    sheet = scene / "boxes.json" / "sheet.png"
    result = label(scene, model, "boxes.json", "--overlay", scene / "overlay", "--sheet", sheet)
    assert result.exit_code == 1
    assert one_line(result.stderr)


def test_interrupt(scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mal_trt.labelling.run.label", stop)
    result = label(scene, model)
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run again with --resume\n"
    # What cannot be gone on with, or in another way, says so.
    monkeypatch.setattr("mal_trt.labelling.dry_run.forecast", stop)
    assert label(scene, model, "boxes.json", "--dry-run").stderr == "interrupted\n"
    monkeypatch.setattr("mal_trt.distributed.run.label_shards", stop)
    assert label(scene, model, "boxes.json", "--shard-pictures", 2).stderr == "interrupted; run the same again\n"
    monkeypatch.setattr("mal_trt.measure.doctor.examine", stop)
    assert call("doctor").stderr == "interrupted\n"


def test_evaluate(scene: Path, model: Path) -> None:
    figures = scene / "figures.json"
    drawn = ("--annotations", scene / "boxes.json", "--device", "cpu", "--threads", 1)
    result = call(
        "evaluate",
        "--images",
        scene / "pictures",
        *drawn,
        "--model",
        model,
        "--json-out",
        figures,
        "--worst",
        scene / "worst.png",
    )
    assert result.exit_code == 0, result.output
    assert (scene / "worst.png").stat().st_size > 1000
    assert "block" in result.stdout
    written = json.loads(figures.read_text())
    assert 0.8 < written["miou"] < 1
    assert label(scene, model, "boxes.json", "--quiet").exit_code == 0
    again = call("evaluate", *drawn, "--labels", scene / "labels.json", "--quiet", "--json-out", figures)
    assert (again.exit_code, again.output) == (0, "")
    assert json.loads(figures.read_text())["miou"] == pytest.approx(written["miou"], abs=1e-9)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("train", ["--images", "a", "--boxes", "b", "--out", "c"]),
        ("export", ["model.pth", "-o", "model.onnx"]),
    ],
)
def test_missing_extra_names_the_command(verb: str, arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mal_trt.cli import main\n"
        f"sys.argv = {['mal-trt', verb, *arguments]!r}\n"
        "main()"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr)
    assert f'pip install "mal-trt[{verb}]"' in done.stderr


@pytest.mark.slow
def test_the_whole_path(scene: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    data = ("--images", scene / "pictures", "--boxes", scene / "boxes.json")
    network = ("--arch", "vit-deit-tiny/16", "--depth", 1, "--head-width", 16, "--crop-size", 64)
    run = ("--batch", 1, "--epochs", 2, "--min-area", 100, "--workers", 0, "--device", "cpu")
    trained = call("train", *data, *network, *run, "--out", scene / "run")
    assert trained.exit_code == 0, trained.output
    onnx = scene / "model.onnx"
    exported = call("export", scene / "run" / "last.pth", "-o", onnx, "--threshold", "0,0.1,0.2")
    assert exported.exit_code == 0, exported.output
    assert "of the logits' range" in exported.stdout
    assert onnx.with_suffix(".parity.npz").exists()
    labelled = label(scene, onnx, "boxes.json", "--flip", "--threshold", "0")
    assert labelled.exit_code == 0, labelled.output
    (annotation,) = json.loads((scene / "labels.json").read_text())["annotations"]
    # Every probability is above 0, so the mask is the box, the published far edge included.
    assert annotation["area"] == 49 * 39


def test_threshold_that_is_no_number(scene: Path, model: Path) -> None:
    result = label(scene, model, "boxes.json", "--threshold", "0.1;0.2")
    assert result.exit_code == 2
    assert one_line(result.stderr)


def test_train_pairs_pictures_with_boxes(tmp_path: Path) -> None:
    result = call("train", "--images", "a", "--images", "b", "--boxes", "c", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--images given 2 times" in result.stderr


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Away from the sources, which Python would import instead of the installed package."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def one_line(stderr: str) -> bool:
    return stderr.startswith("error: ") and stderr.count("\n") == 1


def test_resume_of_a_finished_run_changes_nothing(scene: Path, model: Path) -> None:
    label(scene, model, "boxes.json")
    before = {p: p.read_bytes() for p in scene.iterdir() if p.is_file()}
    again = label(scene, model, "boxes.json", "--resume")
    assert again.exit_code == 0 and "finished before with the same inputs" in again.output
    assert {p: p.read_bytes() for p in scene.iterdir() if p.is_file()} == before
    other = label(scene, model, "boxes.json", "--resume", "--threshold", "0.7")
    assert other.exit_code == 2 and "threshold was None, now 0.7" in other.stderr


def test_a_missing_package_names_the_verb_that_was_called(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from mal_trt.cli import main\n"
        "sys.argv = ['mal-trt', 'prune', 'bundled', '-o', 'p.pth']\n"
        "main()"
    )
    done = run_python(code, tmp_path)
    assert done.stderr == 'error: `mal-trt prune` needs onnx; run: pip install "mal-trt[train,export]"\n'
