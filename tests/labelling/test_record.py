"""The run record beside an output, and `--resume` of a run that had finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mal_trt import Summary, convert, label
from mal_trt.base.errors import InputError
from mal_trt.labelling.run_record import check_beside, record_path, skipped_path

Write = Callable[..., Any]


def run(images: Path, boxes: Path, model: Path, out: Path, **options: Any) -> Summary:
    return label(images, boxes, model, out, **{"batch": 4, "device": "cpu", "threads": 1, "progress": False, **options})


def state(folder: Path) -> dict[str, Any]:
    """Every file under a folder: its bytes and when it was written."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_what_the_record_says(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    (images / "000000000002.png").unlink()
    model, out = tiny_model(), tmp_path / "labels.json"
    summary = run(images, boxes, model, out, threshold=0.4, flip=True)
    record = json.loads((tmp_path / "labels.run.json").read_text())
    assert record["records"] == 18 and record["labelled"] == 12 and record["skipped"] == {"picture missing": 6}
    assert record["model"] == {"name": "tiny.onnx", "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    assert record["given"]["boxes"] == hashlib.sha256(boxes.read_bytes()).hexdigest()
    assert record["given"]["threshold"] == "0.4" and record["given"]["flip"] == "True"
    assert record["used"]["threshold"] == "(0.4, 0.4, 0.4)" and record["used"]["batch"] == "4"
    assert record["provider"] == summary.provider == "CPUExecutionProvider" and record["device"] == "cpu"
    assert record["output"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert record["versions"].keys() >= {"python", "numpy", "pillow"} and record["mal_trt"] and record["command"]
    assert record["seconds"] > 0 and record["boxes_per_second"] > 0 and record["began"] <= record["ended"]


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_a_finished_run_is_left_as_it_is(tmp_path: Path, tiny_model: Write, data_set: Write, format: str) -> None:
    images, boxes = data_set()
    (images / "000000000002.png").unlink()
    model, out = tiny_model(), tmp_path / "out" / "labels"
    options = {"format": format, "overlay": tmp_path / "out" / "overlays"}
    first = run(images, boxes, model, out, **options)
    before = state(tmp_path)
    again = run(images, boxes, model, out, **options, resume=True, threads=2)
    assert state(tmp_path) == before
    assert again.finished_before and not first.finished_before
    assert (again.total, again.labelled, again.skipped, again.skipped_list) == (
        first.total, first.labelled, first.skipped, first.skipped_list,
    )  # fmt: skip
    with pytest.raises(InputError, match="never overwritten"):
        run(images, boxes, model, out, **options)


@pytest.mark.parametrize("change", ["boxes", "model", "batch", "threshold", "images", "overlay"])
def test_another_run_is_told_what_differs(tmp_path: Path, tiny_model: Write, data_set: Write, change: str) -> None:
    images, boxes = data_set()
    model, out = tiny_model(), tmp_path / "labels"
    run(images, boxes, model, out, format="yolo")
    options: dict[str, Any] = {"format": "yolo", "resume": True}
    if change == "boxes":
        boxes.write_text(boxes.read_text() + " ")
    elif change == "model":
        tiny_model(gain=9.0)
    elif change == "images":
        images = images.rename(tmp_path / "moved")
    else:
        options[change] = {"batch": 5, "threshold": 0.3, "overlay": tmp_path / "o"}[change]
    before = state(out)
    with pytest.raises(InputError, match=rf"labels: finished by another run.*{change} was .*, now ") as caught:
        run(images, boxes, model, out, **options)
    assert "\n" not in str(caught.value) and state(out) == before


def test_an_output_that_was_changed_or_is_not_ours(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    model, out = tiny_model(), tmp_path / "labels.json"
    run(images, boxes, model, out)
    whole = out.read_text()
    out.write_text(whole.replace("blobs", "bloBs"))
    with pytest.raises(InputError, match="no longer what the run of"):
        run(images, boxes, model, out, resume=True)
    out.write_text(whole)
    assert run(images, boxes, model, out, resume=True).finished_before
    record = tmp_path / "labels.run.json"
    for text in (None, "", "[]", "{}", '{"schema": 1}', '{"schema": 99}'):
        record.unlink(missing_ok=True)
        if text is not None:
            record.write_text(text)
        with pytest.raises(InputError, match="does not tell which run wrote it"):
            run(images, boxes, model, out, resume=True)
    assert out.read_text() == whole


def test_what_lies_beside_an_output_is_its_own(tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("labels.json", "labels.xml", "labels", "exp.1", "exp.2", "exp.json")]
    assert record_path(outs[0]).name == "labels.run.json" and skipped_path(outs[3]).name == "exp.1.skipped.json"
    assert len({path(out) for path in (record_path, skipped_path) for out in outs}) == 2 * len(outs)
    check_beside(outs[0], ["bundled", None])
    skipped_path(outs[0]).write_text("[]")
    with pytest.raises(InputError, match=r"labels\.skipped\.json: an input"):
        check_beside(outs[0], [skipped_path(outs[0])])
    check_beside(outs[0], [])
    for foreign in ("{}", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]'):
        skipped_path(outs[0]).write_text(foreign)
        with pytest.raises(InputError, match="no list of skipped records"):
            check_beside(outs[0], [])
    skipped_path(outs[0]).write_text('[\n{"index": 0, "id": 1, "image_id": 1, "reason": "bbox missing"}\n]\n')
    check_beside(outs[0], [])
    for foreign in ('{"images": []}', '{"shapes": []}', "[]"):
        record_path(outs[0]).write_text(foreign)
        with pytest.raises(InputError, match=r"labels\.run\.json: no run record; move it"):
            check_beside(outs[0], [])
    (tmp_path / "exp.1").mkdir()
    record_path(tmp_path / "exp.1.json").write_text('{"output": {"name": "exp.1"}}')
    with pytest.raises(InputError, match=r"belongs to exp\.1;"):
        check_beside(tmp_path / "exp.1.json", [])


def test_a_list_of_skipped_records_outlives_other_outputs(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    document = json.loads(boxes.read_text())
    document["annotations"].append({"id": 999, "image_id": 1, "category_id": 3})
    boxes.write_text(json.dumps(document))
    out, model = tmp_path / "labels.json", tiny_model()
    listed = run(images, boxes, model, out).skipped_list
    convert(out, tmp_path / "labels.xml", "cvat", progress=False)
    run(images, boxes, model, tmp_path / "labels", format="yolo")
    assert listed == tmp_path / "labels.skipped.json" and len(json.loads(listed.read_text())) == 1
    assert run(images, boxes, model, out, resume=True).finished_before
