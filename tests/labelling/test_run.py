"""A label run end to end on a tiny real model: masks, records, options, and how files are found."""

from __future__ import annotations

import json
import shutil
import tarfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt import Labeler, label
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.labelling.cpu_masker import CpuMasker
from mal_trt.labelling.summary import Summary

Write = Callable[..., Any]


def run(tmp_path: Path, images: Path, boxes: Path, model: Path, **options: Any) -> tuple[Summary, Any]:
    """A quiet run on one thread; its summary and its output."""
    out = options.pop("out", tmp_path / "labels.json")
    options = {"batch": 4, "device": "cpu", "threads": 1, "progress": False, **options}
    summary = label(images, boxes, model, out, **options)
    return summary, json.loads(Path(out).read_text())


def test_document_keeps_everything_and_gains_masks(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    from pycocotools import mask as coco

    images, boxes = data_set()
    before = json.loads(boxes.read_text())
    summary, after = run(tmp_path, images, boxes, tiny_model())
    assert list(after) == list(before)
    for key in ("info", "images", "categories"):
        assert after[key] == before[key]
    assert len(after["annotations"]) == len(before["annotations"]) == 18
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert {**new, **old} == new  # ids, bbox, score and the unknown key are as they were
        assert set(new) - set(old) == {"segmentation", "area", "iscrowd", "quality"}
        assert 0 < new["quality"]["score"] <= 1 and new["quality"]["parts"] >= 1 and 0 <= new["quality"]["edges"] <= 4
        share = new["area"] / (new["bbox"][2] * new["bbox"][3])
        assert round(share, 4) <= new["quality"]["box_share"] <= 1, "of the box inside the picture"
        assert new["segmentation"]["size"] == [80, 120]
        mask = coco.decode(new["segmentation"])
        assert new["area"] == mask.sum() > 100
        picture = np.asarray(Image.open(images / f"{old['image_id']:012d}.png")).mean(axis=2)
        x, y, w, h = old["bbox"]
        truth = np.zeros_like(mask)
        truth[y : y + h, x : x + w] = picture[y : y + h, x : x + w] > 127
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7
    assert (summary.total, summary.labelled, summary.skipped, summary.resumed) == (18, 18, {}, 0)
    assert summary.provider == "CPUExecutionProvider"
    assert summary.skipped_list is None
    assert summary.boxes_per_second > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "boxes.json",
        "labels.json",
        "labels.run.json",
        "pictures",
        "tiny.onnx",
    ]


def test_masks_equal_the_python_api(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    model = tiny_model()
    _, after = run(tmp_path, images, boxes, model)
    found = [a["segmentation"] for a in after["annotations"]]
    xywh = [a["bbox"] for a in after["annotations"]]
    with Labeler(model, device="cpu", threads=1) as labeler:
        assert labeler(images / "000000000001.png", xywh, format="xywh").rle == found


def test_bare_list_stays_a_bare_list(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    records = json.loads(boxes.read_text())["annotations"]
    whole = run(tmp_path, images, boxes, tiny_model())[1]["annotations"]
    for record in records:
        del record["id"]
    boxes.write_text(json.dumps(records))
    summary, after = run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "bare.json")
    assert [a["segmentation"] for a in after] == [a["segmentation"] for a in whole]
    assert after[0]["score"] == 0.5 and "id" not in after[0]
    assert summary.labelled == 18


def test_bare_list_with_an_image_list(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    document = json.loads(boxes.read_text())
    (images / "000000000001.png").rename(images / "first.png")
    document["images"][0]["file_name"] = "first.png"
    image_list = tmp_path / "list.json"
    image_list.write_text(json.dumps({"images": document["images"]}))
    boxes.write_text(json.dumps(document["annotations"]))
    summary, _ = run(tmp_path, images, boxes, tiny_model())
    assert summary.skipped == {"picture missing": 6}
    assert "1 of 3 are not found by them: give --image-list" in summary.notes[0]
    summary, _ = run(tmp_path, images, boxes, tiny_model(), image_list=image_list, out=tmp_path / "listed.json")
    assert summary.labelled == 18
    # The classes that it names are those of the masks; a result of another class is labelled too.
    names = [{"id": 1, "name": "unused"}, *document["categories"][:1]]
    image_list.write_text(json.dumps({"images": document["images"], "categories": names}))
    named = tmp_path / "named"
    label(images, boxes, tiny_model(), named, image_list=image_list, format="yolo", device="cpu", progress=False)
    other = [str(c["id"]) for c in document["categories"][1:]]
    assert (named / "classes.txt").read_text().split() == [*(name["name"] for name in names), *other]
    with pytest.raises(InputError, match=r"list\.json"):
        run(tmp_path, images, image_list, tiny_model(), image_list=image_list, out=tmp_path / "twice.json")


def test_annotations_may_come_before_images(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    straight = run(tmp_path, images, boxes, tiny_model())[1]
    document = json.loads(boxes.read_text())
    boxes.write_text(json.dumps({key: document[key] for key in reversed(document)}))
    turned = run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "turned.json")[1]
    assert list(turned) == list(reversed(straight))
    assert turned == straight


@pytest.mark.parametrize("kind", ["folder", "tar", "file"])
def test_where_pictures_come_from(tmp_path: Path, tiny_model: Write, data_set: Write, kind: str) -> None:
    folder, boxes = data_set(pictures=1)
    expected = run(tmp_path, folder, boxes, tiny_model())[1]
    images = folder
    if kind == "tar":
        images = tmp_path / "set.tar"
        with tarfile.open(images, "w") as archive:
            archive.add(folder, "images")
    elif kind == "file":
        images = folder / "000000000001.png"
    assert run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "again.json")[1] == expected


def test_sizes_may_be_left_to_the_pictures(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    expected = run(tmp_path, images, boxes, tiny_model())[1]["annotations"]
    document = json.loads(boxes.read_text())
    for image in document["images"]:
        del image["width"]
    boxes.write_text(json.dumps(document))
    found = run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "again.json")[1]["annotations"]
    assert found == expected


def test_box_area(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    _, after = run(tmp_path, images, boxes, tiny_model(), box_area=True)
    assert [a["area"] for a in after["annotations"]] == [a["bbox"][2] * a["bbox"][3] for a in after["annotations"]]


def test_crowd_flag_is_kept(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    record = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [6, 10, 28, 20], "iscrowd": 1}
    images, boxes = data_set(pictures=1, records=[record])
    _, after = run(tmp_path, images, boxes, tiny_model())
    assert after["annotations"][0]["iscrowd"] == 1


def test_threshold(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    areas = []
    for index, threshold in enumerate((0.1, None, 0.95, (0.1, 0.95, 0.5))):
        out = tmp_path / f"{index}.json"
        _, after = run(tmp_path, images, boxes, tiny_model(), threshold=threshold, out=out)
        areas.append(np.array([a["area"] for a in after["annotations"]]))
    assert (areas[0] > areas[1]).all() and (areas[1] > areas[2]).all()
    corners = [(x, y, min(x + w, 120), min(y + h, 80)) for x, y, w, h in (a["bbox"] for a in after["annotations"])]
    small = np.array([(x1 - x0) * (y1 - y0) <= 32**2 for x0, y0, x1, y1 in corners])
    assert small.any() and not small.all()
    np.testing.assert_array_equal(areas[3], np.where(small, areas[0], areas[2]))
    with pytest.raises(InputError, match="threshold"):
        run(tmp_path, images, boxes, tiny_model(), threshold=1.5, out=tmp_path / "bad.json")


def test_weights_and_flip(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    model = tiny_model(weights="mixed")

    def areas(name: str, **options: Any) -> list[int]:
        _, after = run(tmp_path, images, boxes, model, out=tmp_path / f"{name}.json", **options)
        return [a["area"] for a in after["annotations"]]

    plain = areas("plain")
    assert areas("student", weights="student") == plain
    assert areas("teacher", weights="teacher")[0] == 29 * 21 - plain[0]  # the box's other pixels
    # The model treats left and right alike, so the flip test changes nothing but rounding.
    np.testing.assert_allclose(areas("flip", flip=True), plain, atol=2)
    with pytest.raises(InputError, match="student"):
        run(tmp_path, images, boxes, tiny_model(), weights="teacher", out=tmp_path / "none.json")


def test_flip_means_logits_of_the_mirrored_crop(tiny_model: Write) -> None:
    from mal_trt.geometry.boxes import SizeClass
    from mal_trt.labelling.predictor import Predictor

    crops = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
    plain = Predictor(tiny_model(), "cpu", threads=1)
    flipped = Predictor(tiny_model(), "cpu", threads=1, flip=True)
    mirrored = plain.run(np.ascontiguousarray(crops[..., ::-1]), SizeClass.SMALL)[..., ::-1]
    np.testing.assert_allclose(
        flipped.run(crops, SizeClass.SMALL), (plain.run(crops, SizeClass.SMALL) + mirrored) / 2, atol=1e-6
    )


def test_batch_size_does_not_change_the_masks(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    outputs = [
        run(tmp_path, images, boxes, tiny_model(), batch=batch, out=tmp_path / f"{batch}.json")[1]
        for batch in (1, 5, 64)
    ]
    assert outputs[0] == outputs[1] == outputs[2]


def test_batches_mix_pictures_but_never_sizes(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mal_trt.geometry.boxes import SizeClass
    from mal_trt.labelling.predictor import Predictor

    seen: list[tuple[int, SizeClass]] = []
    original = Predictor.run

    def spy(self: Predictor, crops: np.ndarray, size: SizeClass, *frames: Any) -> np.ndarray:
        seen.append((len(crops), size))
        return original(self, crops, size, *frames)

    images, boxes = data_set()  # 15 small and 3 medium boxes on 3 pictures
    monkeypatch.setattr(Predictor, "run", spy)
    run(tmp_path, images, boxes, tiny_model(), batch=4)
    assert sorted(seen[1:]) == [(3, 0), (3, 1), (4, 0), (4, 0), (4, 0)]  # the first call is the trial run


def test_pictures_are_let_go_while_the_plan_is_read(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read of the plan has the boxes of all 24 pictures; only those ahead of the network are in memory."""
    alive: set[int] = set()
    most = 0
    load = CpuMasker.load

    def counted(*arguments: Any) -> Any:
        nonlocal most
        pixels = load(*arguments)
        alive.add(id(pixels))
        weakref.finalize(pixels, alive.discard, id(pixels))
        most = max(most, len(alive))
        return pixels

    monkeypatch.setattr(CpuMasker, "load", counted)
    images, boxes = data_set(pictures=24)
    summary, _ = run(tmp_path, images, boxes, tiny_model(), batch=2)
    assert summary.labelled >= 100 and 0 < most <= 8


def test_overlays(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    folder = tmp_path / "deep" / "overlays"
    run(tmp_path, images, boxes, tiny_model(), overlay=folder)
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:012d}.png.jpg" for i in (1, 2, 3)]
    drawn = np.asarray(Image.open(folder / "000000000002.png.jpg")).astype(int)
    plain = np.asarray(Image.open(images / "000000000002.png")).astype(int)
    assert drawn.shape == plain.shape
    assert np.abs(drawn - plain).max() > 60


def test_overlays_have_the_size_asked_for(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1, size=(240, 160))
    for side, size in ((1600, (240, 160)), (60, (60, 40)), (0, (240, 160))):
        folder = tmp_path / f"overlays-{side}"
        run(tmp_path, images, boxes, tiny_model(), out=tmp_path / f"{side}.json", overlay=folder, overlay_size=side)
        assert [Image.open(p).size for p in folder.iterdir()] == [size]
    with pytest.raises(InputError, match="overlay size 3: expected 0"):
        run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "no.json", overlay=tmp_path / "o", overlay_size=3)


def test_nothing_to_do(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(records=[])
    for text in (boxes.read_text(), "[]"):
        boxes.write_text(text)
        with pytest.raises(NothingDone, match="no boxes in it"):
            run(tmp_path, images, boxes, tiny_model(), overlay=tmp_path / "overlays")
        assert not list(tmp_path.glob("labels*"))


def test_progress_in_a_log_file(
    tmp_path: Path,
    tiny_model: Write,
    data_set: Write,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, boxes = data_set()
    monkeypatch.setattr("mal_trt.base.progress.LOG_SECONDS", 0.0)
    run(tmp_path, images, boxes, tiny_model(), progress=True)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("labelling: 18/18 boxes, ")]
    assert "boxes/s" in line
    run(tmp_path, images, boxes, tiny_model(), out=tmp_path / "quiet.json")
    assert capsys.readouterr().err == ""


def test_two_runs_write_the_same_bytes(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    run(tmp_path, images, boxes, tiny_model())
    shutil.copytree(images, tmp_path / "elsewhere")
    run(tmp_path, tmp_path / "elsewhere", boxes, tiny_model(), out=tmp_path / "second.json")
    assert (tmp_path / "labels.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_overlays_never_replace_pictures(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    (images / "more").mkdir()
    (images / "000000000001.png").rename(images / "more" / "000000000001.jpg")
    before = (images / "more" / "000000000001.jpg").read_bytes()
    for place, folder in ((images, images), (images, images / "more"), (images / "more" / "000000000001.jpg",) * 2):
        folder = folder.parent if folder.suffix else folder
        with pytest.raises(InputError, match="holds input pictures"):
            label(place, boxes, tiny_model(), tmp_path / "o.json", overlay=folder, progress=False)
    linked = tmp_path / "linked" / "more"
    linked.mkdir(parents=True)
    (linked / "000000000001.jpg").symlink_to(images / "more" / "000000000001.jpg")
    with pytest.raises(InputError, match="holds input pictures"):
        label(linked.parent, boxes, tiny_model(), tmp_path / "o.json", overlay=images, progress=False)
    assert (images / "more" / "000000000001.jpg").read_bytes() == before and not (tmp_path / "o.json.journal").exists()
