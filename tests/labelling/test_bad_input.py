"""Bad input: a counted skip with its reason, or one line before any work; nothing already done is lost."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mal_trt import convert, label
from mal_trt.base.errors import InputError, MalTrtError, NothingDone
from mal_trt.labelling.document_rows import parse_bbox
from mal_trt.labelling.summary import Summary

Write = Callable[..., Any]
GOOD = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [6, 10, 28, 20]}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Write) -> Callable[..., tuple[Summary, Any, list[Any]]]:
    """A quiet run: its summary, its output, and its list of skipped records."""

    def go(images: Path, boxes: Path, **options: Any) -> tuple[Summary, Any, list[Any]]:
        out = tmp_path / "labels.json"
        options = {"batch": 2, "device": "cpu", "threads": 1, "progress": False, **options}
        summary = label(images, boxes, tiny_model(), out, **options)
        skipped = json.loads(summary.skipped_list.read_text()) if summary.skipped_list else []
        assert summary.total == summary.labelled + sum(summary.skipped.values())
        assert Counter(s["reason"] for s in skipped) == summary.skipped
        return summary, json.loads(out.read_text()), skipped

    return go


def refusal(call: Callable[[], Any], *words: str) -> None:
    """The call ends in InputError, in one line that has all the words."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": None}, "bbox missing"),
        ({"bbox": "1 2 3 4"}, "bbox is not four numbers"),
        ({"bbox": []}, "bbox is not four numbers"),
        ({"bbox": [1, 2, 3]}, "bbox is not four numbers"),
        ({"bbox": [1, 2, 3, "four"]}, "bbox is not four numbers"),
        ({"bbox": [1, 2, True, 4]}, "bbox is not four numbers"),
        ({"bbox": [math.nan, 2, 3, 4]}, "bbox has a NaN or infinite value"),
        ({"bbox": [1, 2, math.inf, 4]}, "bbox has a NaN or infinite value"),
        ({"bbox": [1, -math.inf, 3, 4]}, "bbox has a NaN or infinite value"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox has a NaN or infinite value"),
        ({"bbox": [1, 2, -3, 4]}, "bbox has zero or negative width or height"),
        ({"bbox": [1, 2, 3, 0]}, "bbox has zero or negative width or height"),
        ({"bbox": [120, 2, 3, 4]}, "bbox has no pixel inside the picture"),
        ({"bbox": [-9, 2, 9, 4]}, "bbox has no pixel inside the picture"),
        ({"bbox": [1e300, 1e300, 5, 5]}, "bbox has no pixel inside the picture"),
        ({"bbox": [1e300, 2, 1e-300, 5]}, "bbox has no pixel inside the picture"),
        ({"image_id": 99}, "unknown image_id"),
        ({"image_id": "one"}, "unknown image_id"),
        ({"image_id": None}, "unknown image_id"),
        ({"image_id": [1]}, "unknown image_id"),
        ({"image_id": True}, "unknown image_id"),
        ({"image_id": 2**70}, "unknown image_id"),
        ({"image_id": math.nan}, "unknown image_id"),
        ({"image_id": "\ud800"}, "unknown image_id"),
        ({"category_id": 4}, "unknown category_id"),
        ({"category_id": None}, "unknown category_id"),
        ({"category_id": "three"}, "unknown category_id"),
        ({"id": 1}, "duplicate id"),
        ({"id": 1.0}, "duplicate id"),
    ],
)
def test_bad_record_is_skipped_with_its_reason(
    run: Write, data_set: Write, changes: dict[str, Any], reason: str
) -> None:
    bad = {**GOOD, "id": 2, **changes}
    images, boxes = data_set(pictures=1, records=[GOOD, bad, {**GOOD, "id": 3}])
    summary, after, skipped = run(images, boxes)
    assert summary.skipped == {reason: 1}
    assert [a["id"] for a in after["annotations"]] == [1, 3]
    assert after["annotations"][0]["segmentation"] == after["annotations"][1]["segmentation"]
    assert skipped[0]["index"] == 1
    assert repr(skipped[0]["id"]) == repr(bad["id"])
    assert repr(skipped[0]["image_id"]) == repr(bad["image_id"])


def test_missing_keys(run: Write, data_set: Write) -> None:
    records = [{k: v for k, v in {**GOOD, "id": n}.items() if k != key} for n, key in enumerate(GOOD)]
    images, boxes = data_set(pictures=1, records=records)
    summary, _, _ = run(images, boxes)
    assert summary.skipped == {"bbox missing": 1, "unknown image_id": 1, "unknown category_id": 1}
    assert summary.labelled == 1  # the one without an id


def test_category_is_free_where_the_document_has_none(run: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1, records=[{**GOOD, "category_id": 77}], categories=None)
    assert run(images, boxes)[0].labelled == 1


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [
        ([-20, -10, 60, 50], [0, 0, 40, 40]),
        ([-1e300, -1e300, 1.7e308, 1.7e308], [0, 0, 120, 80]),
        ([100, 60, 1e308, 1e308], [100, 60, 20, 20]),
        ([119.5, 79.5, 100, 100], [119.5, 79.5, 0.5, 0.5]),
    ],
)
def test_what_lies_inside_is_labelled(
    run: Write, data_set: Write, tmp_path: Path, bbox: list[float], clipped: list[float]
) -> None:
    images, boxes = data_set(pictures=1, records=[{**GOOD, "bbox": bbox}, {**GOOD, "id": 2, "bbox": clipped}])
    summary, after, _ = run(images, boxes)
    first, second = after["annotations"]
    assert summary.labelled == 2
    assert first["bbox"] == bbox
    assert first["segmentation"] == second["segmentation"]


def test_a_sliver_of_a_box(run: Write, data_set: Write) -> None:
    records = [{**GOOD, "bbox": [20, 20, 1e-9, 1e-9]}, {**GOOD, "id": 2, "bbox": [0, 0, 120, 1e-5]}]
    images, boxes = data_set(pictures=1, records=records)
    assert run(images, boxes)[0].labelled == 2


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "size", "folder"])
def test_bad_picture_skips_its_boxes_only(run: Write, data_set: Write, damage: str) -> None:
    images, boxes = data_set(pictures=3)
    whole = run(images, boxes)[1]["annotations"]
    (boxes.parent / "labels.json").unlink()
    path = images / "000000000002.png"
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "size":
        Image.new("RGB", (80, 120)).save(path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "cut": data[: len(data) // 2]}[damage])
    reason = {
        "missing": "picture missing",
        "empty": "picture file is empty",
        "text": "not a picture",
        "cut": "picture truncated or damaged",
        "size": "picture size differs from the document",
        "folder": "picture missing",
    }[damage]
    summary, after, skipped = run(images, boxes)
    assert summary.skipped == {reason: 6}
    assert after["annotations"] == [a for a in whole if a["image_id"] != 2]
    assert {s["image_id"] for s in skipped} == {2}
    if damage == "size":
        assert skipped[0]["detail"] == "80x120, the document says 120x80"


def test_every_picture_bad(run: Write, data_set: Write) -> None:
    images, boxes = data_set()
    for path in images.iterdir():
        path.write_bytes(b"")
    with pytest.raises(NothingDone, match=r"not one of its 18 boxes .* \(picture file is empty: 18\)") as caught:
        run(images, boxes, overlay=boxes.parent / "overlays")
    assert caught.value.listed is not None and len(json.loads(caught.value.listed.read_text())) == 18
    assert not list(boxes.parent.glob("labels.json*")), "a second run starts anew"


def test_bad_picture_where_the_document_leaves_its_size_open(run: Write, data_set: Write) -> None:
    images, boxes = data_set()
    document = json.loads(boxes.read_text())
    document["images"][0]["width"] = "wide"
    del document["images"][1]["height"]
    del document["images"][2]["file_name"]
    boxes.write_text(json.dumps(document))
    (images / "000000000002.png").write_bytes(b"")
    summary, _, _ = run(images, boxes)
    assert summary.skipped == {"image record without file_name": 6, "picture file is empty": 6}
    assert summary.labelled == 6


def test_image_ids_that_occur_twice(run: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=2)
    document = json.loads(boxes.read_text())
    document["images"][1]["id"] = 1
    document["annotations"] = [GOOD]
    boxes.write_text(json.dumps(document))
    assert run(images, boxes)[0].labelled == 1


def test_one_by_one(run: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1, size=(1, 1), records=[{**GOOD, "bbox": [0, 0, 1, 1]}])
    Image.new("L", (1, 1), 255).save(images / "000000000001.png")
    _, after, _ = run(images, boxes)
    assert after["annotations"][0]["segmentation"]["size"] == [1, 1]
    assert after["annotations"][0]["area"] == 1


def test_a_stale_list_of_skipped_records_goes(run: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    (boxes.parent / "labels.skipped.json").write_text("[]")
    assert run(images, boxes)[0].skipped_list is None
    assert not (boxes.parent / "labels.skipped.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["boxes.json", "empty"]),
        ("not json", ["boxes.json", "character 0"]),
        ('{"images": [], "annotations": [', ["boxes.json", "not valid JSON"]),
        ("3", ["boxes.json", "a number"]),
        ("{}", ["boxes.json", "`images`", "`annotations`"]),
        ('{"annotations": []}', ["boxes.json", "`images`"]),
        ('{"images": []}', ["boxes.json", "`annotations`"]),
        ('{"images": {}, "annotations": []}', ["boxes.json", "`images`", "expected a list"]),
        ('{"images": [], "annotations": 3}', ["boxes.json", "`annotations`", "expected a list"]),
        ('{"images": [], "annotations": [1]}', ["boxes.json", "record 0 of `annotations`"]),
        ("[[1, 2, 3, 4]]", ["boxes.json", "record 0 of the list"]),
        ('[{"x": 1}]', ["boxes.json", "image_id"]),
        ('{"type": "FeatureCollection", "features": []}', ["boxes.json", "`images`"]),
    ],
)
def test_not_coco_is_one_line_and_leaves_nothing(
    run: Write, data_set: Write, tmp_path: Path, text: str, words: list[str]
) -> None:
    images, boxes = data_set(pictures=1)
    boxes.write_text(text)
    refusal(lambda: run(images, boxes), *words)
    assert not list(tmp_path.glob("labels*")) and not list(tmp_path.glob(".labels*"))


def test_files_that_are_not_there(run: Write, data_set: Write, tmp_path: Path, tiny_model: Write) -> None:
    images, boxes = data_set(pictures=1)
    refusal(lambda: run(tmp_path / "none", boxes), "none")
    refusal(lambda: run(images, tmp_path / "none.json"), "none.json")
    refusal(lambda: run(images, images), str(images), "holds no boxes")
    refusal(lambda: run(images, boxes, image_list=tmp_path / "none.json"), "none.json")
    refusal(lambda: run(images, boxes, batch=0), "batch 0")
    refusal(lambda: label(images, boxes, tmp_path / "none.onnx", tmp_path / "labels.json"), "none.onnx")
    assert not list(tmp_path.glob("labels*"))


def test_output_that_cannot_be_written(data_set: Write, tmp_path: Path, tiny_model: Write) -> None:
    images, boxes = data_set(pictures=1)
    model = tiny_model()
    (tmp_path / "file").write_text("")
    quiet = {"device": "cpu", "threads": 1, "progress": False}
    for out in (tmp_path / "file" / "labels.json", tmp_path / "file" / "deep" / "labels.json", images):
        refusal(lambda out=out: label(images, boxes, model, out, **quiet), str(out.parent))
    refusal(
        lambda: label(images, boxes, model, tmp_path / "a.json", overlay=tmp_path / "file" / "x", **quiet),
        "file",
    )
    for out in (".", "", "/"):
        refusal(lambda out=out: label(images, boxes, model, out, **quiet), "takes a name")
    long = tmp_path / ("a" * 228 + ".json")  # whose journal has a name that the disk takes
    refusal(lambda: label(images, boxes, model, long, **quiet), "skipped.json cannot be written beside it")
    refusal(lambda: convert(boxes, long, progress=False), "skipped.json cannot be written beside it")
    refusal(lambda: label(images, boxes, model, tmp_path / "b", format=[], **quiet), "no format")
    refusal(lambda: label(images, boxes, model, f"/proc/{'x' * 8}.json", **quiet), "/proc")
    for length in (245, 300):
        refusal(lambda n=length: label(images, boxes, model, tmp_path / f"{'x' * n}.json", **quiet), "too long")
    assert not list(tmp_path.glob("a.json*"))


def test_overlays_have_a_place_of_their_own(data_set: Write, tmp_path: Path, tiny_model: Write) -> None:
    images, boxes = data_set(pictures=1)
    quiet = {"device": "cpu", "threads": 1, "progress": False}
    for name, format, overlay in (("a", "yolo", "a/deep"), ("a.json", "coco", "a.json")):
        refusal(
            lambda name=name, format=format, overlay=overlay: label(
                images, boxes, tiny_model(), tmp_path / name, format=format, overlay=tmp_path / overlay, **quiet
            ),
            "lies in the output",
        )
    assert not list(tmp_path.glob("a*"))


def test_a_second_run_never_overwrites(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set(pictures=1)
    run(images, boxes)
    before = (tmp_path / "labels.json").read_bytes()
    refusal(lambda: run(images, boxes), "labels.json", "exists")
    (tmp_path / "labels.run.json").unlink()
    refusal(lambda: run(images, boxes, resume=True), "labels.json", "labels.run.json", "nothing to resume")
    assert (tmp_path / "labels.json").read_bytes() == before
    shutil.copy(boxes, tmp_path / "labels.json")
    refusal(lambda: label(images, tmp_path / "labels.json", out=tmp_path / "labels.json"), "exists")


def test_foreign_file_in_the_journals_place(run: Write, data_set: Write, tmp_path: Path) -> None:
    images, boxes = data_set(pictures=1)
    (tmp_path / "labels.json.journal").write_text("my diary\n" * 1000)
    refusal(lambda: run(images, boxes), "labels.json.journal", "--resume")
    refusal(lambda: run(images, boxes, resume=True), "labels.json.journal", "not a journal")
    assert (tmp_path / "labels.json.journal").read_text() == "my diary\n" * 1000


def test_nan_logits_end_the_run_and_keep_the_journal(
    run: Write, data_set: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mal_trt.base.errors import RunError
    from mal_trt.labelling.predictor import Predictor

    images, boxes = data_set()
    calls = 0
    original = Predictor.run

    def failing(self: Predictor, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RunError("the device fell off the bus")
        return original(self, *arguments)

    monkeypatch.setattr(Predictor, "run", failing)
    with pytest.raises(MalTrtError, match="fell off"):
        run(images, boxes)
    assert not (tmp_path / "labels.json").exists()
    monkeypatch.undo()
    summary, _, _ = run(images, boxes, resume=True)
    # The two batches before the failing one are kept, and those that were in the network beside it.
    assert summary.resumed in range(4, 17, 2) and summary.labelled == 18


def test_parse_bbox() -> None:
    assert parse_bbox([1, 2.5, 3, 4]) == (1.0, 2.5, 3.0, 4.0)
