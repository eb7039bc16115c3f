"""The command: lean to start, one line per failure, its verbs end to end on a model made here."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mal_trt.artifacts.contract import METADATA_KEY, Contract
from mal_trt.cli import app

SIDE = 64
HEAVY = ("torch", "onnx", "timm", "onnxruntime", "numpy", "PIL", "pycocotools", "cv2", "rich")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
VERBS = tuple(verb for verb, command in COMMANDS.items() if not command.hidden)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that calls every bright pixel the object."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    contract = Contract(
        arch="toy",
        layout="patch",
        input_size=SIDE,
        input_dtype="uint8",
        adjust_scale=False,
        head="fixed",
        precision="fp32",
        weights="student",
        source="toy.pth",
        source_sha256="0" * 64,
        producer="test",
    )
    values = {"axes": [1], "half": [128.0], "wide": [16.0]}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["grey"], keepdims=1),
            helper.make_node("AveragePool", ["grey"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Sub", ["small", "half"], ["signed"]),
            helper.make_node("Div", ["signed", "wide"], ["logits"]),
        ],
        "bright",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1, SIDE // 4, SIDE // 4])],
        [
            onnx.numpy_helper.from_array(np.array(v, np.int64 if k == "axes" else np.float32), k)
            for k, v in values.items()
        ],
    )
    document = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(document, {METADATA_KEY: contract.to_json()})
    path = tmp_path_factory.mktemp("model") / "bright.onnx"
    onnx.save(document, path)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """pictures/a.png: a white 40x30 block at (20, 10) on black; boxes.json: its box, a NaN box, its mask."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[10:40, 20:60] = 255
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures" / "a.png")
    block = [[20, 10, 60, 10, 60, 40, 20, 40]]
    good = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [16, 6, 48, 38], "segmentation": block}
    bad = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, -5, 5]}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "block"}],
        "annotations": [good],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    (tmp_path / "bad.json").write_text(json.dumps({**document, "annotations": [good, bad]}))
    return tmp_path


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


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
        "--json",
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
    again = call("evaluate", *drawn, "--labels", scene / "labels.json", "--quiet", "--json", figures)
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
