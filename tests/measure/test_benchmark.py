"""`benchmark`: hashes, counts and quality that can be worked out by hand; what fails, fails alone."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mal_trt import convert
from mal_trt.base.errors import MalTrtError, RunError
from mal_trt.base.memory import Memory
from mal_trt.cli import app
from mal_trt.cli.benchmark_table import print_benchmark
from mal_trt.measure import benchmark_run as module
from mal_trt.measure.benchmark import benchmark
from mal_trt.measure.benchmark_report import COLUMNS, rows
from mal_trt.measure.evaluate import evaluate
from mal_trt.measure.hardware import hardware
from mal_trt.measure.timing import HostStopwatch

FAST: dict[str, Any] = {
    **{"device": "cpu", "threads": 1, "progress": False},
    **{"batches": (1, 2), "runs": 3, "warm_up": 1, "rounds": 1},
}


@pytest.fixture
def blobs(data_set: Any) -> tuple[Path, Path]:
    """18 boxes in 3 pictures, 15 of them small; the drawn mask is the left half of the box."""
    images, path = data_set()
    document = json.loads(path.read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x + w / 2, y, x + w / 2, y + h, x, y + h]]
    path.write_text(json.dumps(document))
    return images, path


@pytest.fixture
def model(tiny_model: Any, tmp_path: Path) -> Any:
    return lambda name, **options: tiny_model(**options).rename(tmp_path / name)


def test_the_whole_result(blobs: tuple[Path, Path], model: Any, tmp_path: Path, capsys: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    files = {"json_out": tmp_path / "r.json", "csv_out": tmp_path / "r.csv"}
    options = {**FAST, "rounds": 2, "threshold": 0.6}
    result = benchmark(models, images, annotations=document, command="mal-trt benchmark ...", **files, **options)
    assert json.loads(files["json_out"].read_text()) == result
    assert (result["complete"], result["command"]) == (True, "mal-trt benchmark ...")
    data = {"name": str(document), "pictures": 3, "boxes": 18, "size_shares": {"small": 0.8333, "medium": 0.1667}}
    assert result["data"] == data
    for path, found in zip(models, result["models"], strict=True):
        assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found["bytes"], found["provider"]) == (path.stat().st_size, "CPUExecutionProvider")
        assert [(row["batch"], row["runs"], row["clock"]) for row in found["network"]] == [
            (1, 6, "wall clock"),
            (2, 6, "wall clock"),
        ]
        assert all(row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] < 10_000 for row in found["network"])
        assert found["network"][1]["runs_by_size"] == {"small": 6}  # of three runs the sixth part is none, twice
        labelled = found["label"]
        assert (labelled["boxes"], labelled["pictures"], labelled["skipped"]) == (18, 3, 0)
        assert len(labelled["seconds"]) == len(labelled["whole_seconds"]) == 2
        assert labelled["boxes_per_s"] == pytest.approx(36 / sum(labelled["seconds"]))
        assert labelled["pictures_per_s"] == pytest.approx(labelled["boxes_per_s"] / 6)
        expected = evaluate(images, document, path, threshold=0.6, device="cpu", threads=1, progress=False)
        for key in ("miou", "miou_small", "miou_medium", "miou_large"):
            assert found["quality"][key] == expected[key]
    first, second = (found["quality"] for found in result["models"])
    assert "iou" not in first and 0.5 < second["iou"] < 1 and second["iou_boxes"] == 18
    with files["csv_out"].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS and len(lines) == 6
    assert [line["what"] for line in lines[:3]] == ["network", "network", "label"]
    for line, row in zip(lines, rows(result), strict=True):
        assert float(line["boxes_per_s"]) == row["boxes_per_s"] and float(line["miou"]) == row["miou"]
    print_benchmark(result)
    shown = capsys.readouterr().out
    assert "mIoU %" in shown and f"{100 * first['miou']:.2f}" in shown and "17 % medium" in shown


def test_quality_without_drawn_masks(blobs: tuple[Path, Path], model: Any) -> None:
    images, document = blobs
    models = [model("a.onnx"), model("b.onnx", weights="mixed"), model("c.onnx", gain=-8.0)]
    result = benchmark(models, images, document, **FAST)
    first, same, opposite = (found["quality"] for found in result["models"])
    assert first is None
    assert same == {"iou": 1.0, "iou_boxes": 18}
    assert opposite["iou"] < 0.3


def test_engine_only_labels_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "label", None)
    result = benchmark([model("a.onnx")], end_to_end=False, size="medium", **FAST)
    (found,) = result["models"]
    assert found["label"] is found["quality"] is None
    assert found["network"][0]["runs_by_size"] == {"medium": 3}
    assert result["data"]["name"] == "example photos" and set(result["data"]["size_shares"]) == {"medium", "large"}


def test_one_batch_too_many(blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    images, document = blobs
    original = HostStopwatch.time

    def time(self: HostStopwatch, sizes: Any) -> list[float]:
        count = len(self._crops)
        if count == 4:
            raise MemoryError
        if count == 8:
            raise RunError("ONNX Runtime failed on a batch of 8: no room")
        return original(self, sizes)

    monkeypatch.setattr(HostStopwatch, "time", time)
    result = benchmark([model("a.onnx")], images, document, **{**FAST, "batches": (1, 4, 8, 2), "rounds": 2})
    network = result["models"][0]["network"]
    assert [row.get("runs") for row in network] == [6, None, None, 6]
    assert [row.get("error") for row in network[1:3]] == [
        "out of memory",
        "ONNX Runtime failed on a batch of 8: no room",
    ]
    assert result["complete"] and result["models"][0]["label"]["boxes"] == 18
    print_benchmark(result)
    assert "a.onnx, batch 4: out of memory" in capsys.readouterr().out


def test_a_batch_for_which_there_is_no_memory_is_not_tried(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_memory", lambda: Memory(1 << 20, 0))
    options = {**FAST, "batches": (1, 200_000), "end_to_end": False}
    (found,) = benchmark([model("a.onnx")], **options)["models"]
    small, large = found["network"]
    assert small["runs"] == 3
    assert large["error"].startswith("it needs about ") and "are free; measure a smaller one" in large["error"]


def test_labelling_that_fails(blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, document = blobs
    original = module.label

    def label(images: Any, boxes: Any, model: Path, *rest: Any, **options: Any) -> Any:
        if model.name == "a.onnx":
            raise RunError("no room")
        return original(images, boxes, model, *rest, **options)

    monkeypatch.setattr(module, "label", label)
    result = benchmark([model("a.onnx"), model("b.onnx")], images, document, **FAST)
    assert [found["label"].get("error") for found in result["models"]] == ["no room", None]
    assert [found["quality"] for found in result["models"]] == [None, None]  # there is no reference


def test_drawn_masks_that_lie_away_from_their_pictures(blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    images, document = blobs
    convert(document, tmp_path / "yolo", "yolo", images=images, progress=False)
    result = benchmark([model("a.onnx")], images, annotations=tmp_path / "yolo", **FAST)
    (found,) = result["models"]
    assert "error" not in found["label"] and found["quality"]["objects"] == 18


def test_where_all_fails_the_command_fails(
    blobs: tuple[Path, Path], model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, document = blobs

    def fail(*given: Any, **options: Any) -> Any:
        raise MemoryError

    words = ["benchmark", "--model", str(model("a.onnx")), "--images", str(images), "--boxes", str(document)]
    words += ["--batch", "1", "--runs", "1", "--rounds", "1", "--json-out", str(tmp_path / "r.json"), "-q"]
    monkeypatch.setattr(HostStopwatch, "time", fail)
    assert CliRunner().invoke(app, words).exit_code == 0  # labelling was measured
    monkeypatch.setattr(module, "label", fail)
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stderr) == (1, "error: nothing could be measured: out of memory\n")
    assert json.loads((tmp_path / "r.json").read_text())["complete"]


def test_an_interrupted_run_keeps_what_it_has(
    blobs: tuple[Path, Path], model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, document = blobs

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "label", stop)
    out = [str(tmp_path / name) for name in ("r.json", "r.csv")]
    arguments = ["--images", images, "--boxes", document, "--model", model("a.onnx"), "--batch", "1,2", "--runs", 2]
    done = CliRunner().invoke(
        app, ["benchmark", *map(str, arguments), "--device", "cpu", "--json-out", out[0], "--csv", out[1]]
    )
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")
    assert "a.onnx" in done.stdout and "boxes/s" in done.stdout
    result = json.loads(Path(out[0]).read_text())
    assert result["complete"] is False
    assert [row["batch"] for row in result["models"][0]["network"]] == [1, 2]
    assert Path(out[1]).read_text().count("\n") == 3


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(suffix: str, blobs: tuple[Path, Path], model: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images, document = blobs
    path = tmp_path / f"plot{suffix}"
    models = [model("a.onnx"), model("b.onnx", gain=3.0)]
    benchmark(models, images, document, plot_out=path, **FAST)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert suffix == ".png" or b"a.onnx, fp32" in content


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batches": (0,)}, "batch 0"),
        ({"size": "huge"}, "size 'huge'"),
        ({"rounds": 0}, "rounds 0"),
        ({"images": "pictures"}, "belong together"),
        ({"boxes": "boxes.json", "annotations": "boxes.json"}, "give either"),
        ({"images": "pictures", "boxes": "absent.json"}, "absent.json: cannot be read"),
        ({"images": "pictures", "boxes": "list.json"}, "list.json: not a COCO document"),
        ({"images": "pictures", "annotations": "bare.json"}, "bare.json: no box has a drawn mask"),
        ({"images": "pictures", "boxes": "empty.json"}, "no boxes in it, so none was measured with"),
        ({"images": "absent", "boxes": "boxes.json"}, "absent: no such folder"),
        ({"json_out": "absent/r.json"}, "folder does not exist"),
        ({"plot_out": "r.pdf"}, "a .png or an .svg"),
        ({"plot_out": "r.png"}, "--plot sets speed against quality"),
        ({"models": []}, "no model to measure"),
        ({"models": ["absent.onnx"]}, "absent.onnx: no such model file"),
        ({"device": "cuda"}, "device cuda"),
        ({"json_out": "out.json", "csv_out": "./out.json"}, "two of the results would go there"),
    ],
)
def test_bad_input_is_said_before_any_timing(
    options: dict[str, Any], says: str, blobs: tuple[Path, Path], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if options.get("device") == "cuda" and hardware().get("gpus"):
        pytest.skip("this machine has a GPU")
    _, document = blobs
    monkeypatch.chdir(document.parent)
    monkeypatch.setattr(module, "measure", None)
    content = json.loads(document.read_text())
    bare = [{k: v for k, v in record.items() if k != "segmentation"} for record in content["annotations"]]
    Path("bare.json").write_text(json.dumps({**content, "annotations": bare}))
    Path("empty.json").write_text(json.dumps({**content, "annotations": []}))
    Path("list.json").write_text("[1]")
    with pytest.raises(MalTrtError) as caught:
        benchmark(**{"models": [model("a.onnx")], **FAST, **options})
    assert says in str(caught.value)
