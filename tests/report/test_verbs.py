"""`--report` of label, evaluate, compare and benchmark: what their pages hold is what the verbs said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mal_trt.cli import app
from mal_trt.formats.images import open_images
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.measure.worst import ScoredObject
from mal_trt.report.comparison import report_of_comparison
from mal_trt.report.evaluation import report_of_evaluation
from mal_trt.report.speed import report_of_benchmark
from report_pages import Page, data_of

Data = Callable[..., tuple[Path, Path]]


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_label_reports_what_it_wrote(tiny_model: Callable[..., Path], data_set: Data, tmp_path: Path) -> None:
    pictures, boxes = data_set(2)
    document = json.loads(boxes.read_text())
    document["annotations"][0]["bbox"] = [5, 5, -1, 5]
    boxes.write_text(json.dumps(document))
    out, report = tmp_path / "labels.json", tmp_path / "report"
    words = ["label", "--images", pictures, "--boxes", boxes, "--model", tiny_model(), "--device", "cpu", "--out", out]
    said = run(*words, "--report", report)
    written = json.loads(out.read_text())["annotations"]
    assert f"{report}/index.html: {len(written)} objects, 1 records skipped; open it in a browser" in said
    index, entries, page = data_of(report, "index"), data_of(report, "page"), Page(report)
    scores = {record["id"]: record["quality"]["score"] for record in written}
    assert sorted(scores) == sorted(entry["id"] for entry in entries)
    assert index["columns"]["score"] == sorted(round(1000 * score) for score in scores.values())
    assert page.cards["Skipped"] == "1" and page.cards["Run by"].startswith("CPUExecutionProvider on cpu")
    assert data_of(report, "skipped")[0]["reason"] == "bbox has zero or negative width or height"
    before = (report / "data" / "index.js").read_bytes()
    assert "finished before" in run(*words, "--report", tmp_path / "again", "--resume")
    assert (tmp_path / "again" / "data" / "index.js").read_bytes() == before


def test_evaluate_shows_the_worst_first(data_set: Data, tmp_path: Path) -> None:
    pictures, boxes = data_set(1)
    document = json.loads(boxes.read_text())
    labels = []
    for number, record in enumerate(document["annotations"]):
        square = LocalMask(2, 2, np.ones((20, 20), bool))
        record["segmentation"] = encode_rle(square, 80, 120)
        rows = 20 - 3 * number
        part = encode_rle(LocalMask(2, 2, np.ones((rows, 20), bool)), 80, 120)
        labels.append({"id": record["id"], "segmentation": part})
    labels.pop()
    boxes.write_text(json.dumps(document))
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    report = tmp_path / "report"
    figures = tmp_path / "figures.json"
    words = ("evaluate", "--annotations", boxes, "--labels", tmp_path / "labels.json", "--images", pictures)
    run(*words, "--json-out", figures, "--report", report)
    result = json.loads(figures.read_text())
    index, entries, page = data_of(report, "index"), data_of(report, "page"), Page(report)
    assert index["layers"] == ["mask", "drawn mask"] and index["by"] == "iou"
    assert index["columns"]["iou"] == [round(1000 * (20 - 3 * n) / 20) for n in reversed(range(len(labels)))]
    assert entries[0]["id"] == labels[-1]["id"] and all(len(entry["masks"]) == 2 for entry in entries)
    assert page.cards["mIoU"] == f"{100 * result['miou']:.1f} %" and page.cards["Not scored"] == "1"
    assert CliRunner().invoke(app, ["evaluate", "--annotations", str(boxes), "--report", str(boxes)]).exit_code == 2
    for option, name in (("--json-out", "r.json"), ("--worst", "w.png")):
        done = CliRunner().invoke(app, [str(w) for w in (*words, option, report / name, "--report", report)])
        assert done.exit_code == 2 and "which is replaced as a whole" in done.output


def test_evaluate_shows_its_own_means_and_points(tmp_path: Path) -> None:
    """A class of three and one of one: their means differ over classes and over objects."""
    score = {"iou": 0.5, "count": 3}, {"iou": 0.9, "count": 1}
    points = {"annotation_id": 7, "class": "<cup>", "right": 0.75, "inside": 0.5, "outside": None, "labelled": False}
    result: dict[str, Any] = {
        **{"miou": 0.7, "miou_small": 0.7, "miou_medium": None, "miou_large": None, "miou_instance": 0.6},
        **{"recall": 0.8, "precision": 0.8, "boundary_iou": 0.5, "count": 4, "skipped": 0, "skipped_reasons": {}},
        **{"per_class": dict(zip(("cup", "jar"), score, strict=True)), "annotations": "val.json"},
        "points": {"right": 0.75, "inside": 0.5, "outside": None, "worst": 0.75, "count": 4, "objects": [points]},
    }
    rle = encode_rle(LocalMask(1, 1, np.ones((4, 4), bool)), 20, 20)
    seen = [
        ScoredObject(n, ("cup", "jar")[n // 3], 0.5, (1, 1, 4, 4), {"file_name": "a"}, rle, rle, n // 3)
        for n in range(4)
    ]
    report_of_evaluation(result, seen, open_images(tmp_path), tmp_path / "report", progress=False)
    page = Page(tmp_path / "report")
    texts = [text for _, text in page.named]
    assert texts[texts.index("mIoU", texts.index("Size of the box, in pixels")) :][:4][3] == "70.0 %"
    assert texts[texts.index("jar") + 2] == "90.0 %"
    assert page.cards["Points right"] == "75.0 %" and "<cup> (id 7), not labelled" in texts
    nothing = {**result, "count": 0, "per_class": {}, "miou": None}
    report_of_evaluation(nothing, [], open_images(tmp_path), tmp_path / "report", progress=False)
    cards = Page(tmp_path / "report").cards
    assert cards["Points right"] == "75.0 %" and "mIoU" not in cards


def test_compare_shows_the_masks_of_each_model(tiny_model: Callable[..., Path], data_set: Data, tmp_path: Path) -> None:
    pictures, boxes = data_set(1)
    model = tiny_model()
    report = tmp_path / "report"
    words = ("compare", model, model, "--images", pictures, "--boxes", boxes, "--device", "cpu", "--report", report)
    assert "open it in a browser" in run(*words)
    index, entries = data_of(report, "index"), data_of(report, "page")
    assert index["layers"] == ["tiny.onnx (1)", "tiny.onnx (2)"] and set(index["columns"]["iou"]) == {1000}
    assert index["classes"] == ["blob"] and all(entry["masks"][0] == entry["masks"][1] for entry in entries)


@pytest.mark.parametrize("complete", [True, False])
def test_benchmark_shows_every_figure(tmp_path: Path, complete: bool) -> None:
    row = {"batch": 1, "boxes_per_s": 40.0, "p50_ms": 20.0, "p90_ms": 21.0, "p99_ms": 22.0}
    model: dict[str, Any] = {
        **{"model": "<b>.onnx", "sha256": "12ab", "precision": "fp32", "provider": "CPU"},
        "network": [row, {"batch": 8, "error": "out of memory"}],
        "label": {"boxes_per_s": 30.5, "pictures_per_s": 3.0, "watts": 12.5, "boxes_per_joule": 2.4},
        "quality": {"miou": 0.5},
    }
    result = {
        **{"mal_trt": "1", "date": "2026", "command": "mal-trt benchmark", "complete": complete},
        "machine": {"cpu": "a processor", "cores": 2},
        "data": {"name": "photos", "pictures": 1, "boxes": 2, "size_shares": {"small": 1.0}},
        "options": {"size": "mix", "label": {"device": "cpu", "threads": None}},
        "models": [model],
    }
    report_of_benchmark(result, tmp_path / "report")
    page = Page(tmp_path / "report")
    assert page.cards["Network alone"] == "40.0 /s" and page.cards["Files to masks"] == "30.5 /s"
    assert page.cards["mIoU"] == "50.0 %" and "out of memory" in page.texts and "<b>.onnx" in page.texts
    heads = [text for tag, text in page.named if tag == "th"]
    assert heads[-4:] == ["boxes/s", "pictures/s", "watts", "boxes/J"] and "12.5" in page.texts
    assert any("interrupted" in text for text in page.texts) is not complete
    assert not (tmp_path / "report" / "data" / "index.js").exists()


def test_a_model_without_a_mask_has_nothing_in_common(tmp_path: Path) -> None:
    from mal_trt.measure.compare_boxes import PlannedBox
    from mal_trt.measure.compare_run import ComparedBox

    rle = encode_rle(LocalMask(1, 1, np.ones((4, 4), bool)), 20, 20)
    box = PlannedBox(7, "gone.png", 20, 20, (1.0, 1.0, 5.0, 5.0), "{}", "cup")
    fact = {"precision": "fp16", "provider": "CPU", "input_size": 64, "thresholds": [0.1] * 3}
    size = {"boxes": 1, "mask_iou": None, "logit_error": None}
    result = {
        "reference": {"model": "a.onnx", **fact},
        "models": [{"model": "b.onnx", **fact, **size, "by_size": {}, "miou": None}],
        **{"boxes": 1, "drawn_masks": 0, "skipped_reasons": {}, "document": "d", "read": "", "notes": []},
    }
    seen = [ComparedBox(box, (rle, None), None), ComparedBox(box, (None, rle), None)]
    (tmp_path / "pictures").mkdir()
    done = report_of_comparison(result, seen, open_images(tmp_path / "pictures"), tmp_path / "report", progress=False)
    assert (done.objects, done.unread) == (2, 1)
    assert data_of(tmp_path / "report", "index")["columns"]["iou"] == [0, 0]
    assert sorted(bool(mask) for entry in data_of(tmp_path / "report", "page") for mask in entry["masks"]) == [
        *(False, False, True, True)
    ]
