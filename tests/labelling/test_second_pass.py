"""--second-pass: boxes that are too large are labelled again as the boxes of their masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt import Labeler, evaluate, label
from mal_trt.base.errors import InputError, RunError
from mal_trt.formats.images import open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle
from mal_trt.geometry.rle_batch import rle_json
from mal_trt.labelling import narrowing
from mal_trt.labelling.cpu_masker import CpuMasker
from mal_trt.labelling.dry_run import forecast
from mal_trt.labelling.journal import Journal, Result
from mal_trt.labelling.masker import Batch, Mask, draw
from mal_trt.labelling.narrowing import in_passes
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor
from mal_trt.labelling.second_pass import draw_again, narrowed

Write = Callable[..., Any]
OPTIONS: dict[str, Any] = {"batch": 4, "device": "cpu", "threads": 1, "progress": False}


def annotations(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["annotations"]
    return found


def loosened(boxes: Path, by: int = 7) -> Path:
    """The same document with boxes that are larger on all sides, which changes the size class of some."""
    document = json.loads(boxes.read_text())
    for record in document["annotations"]:
        x, y, w, h = record["bbox"]
        record["bbox"] = [x - by, y - by, w + 2 * by, h + 2 * by]
    loose = boxes.with_name("loose.json")
    loose.write_text(json.dumps(document))
    return loose


@pytest.fixture
def coupled(tiny_model: Write, data_set: Write) -> tuple[Path, Path, Path]:
    """Pictures, boxes that are too large, and a model whose masks tell with whom a box shared its batch."""
    images, boxes = data_set(pictures=4)
    return images, loosened(boxes), tiny_model(coupled=True)


def test_the_boxes_of_masks() -> None:
    inner = np.zeros((6, 9), bool)
    inner[2:4, 1:8] = True
    masks = [LocalMask(20, 10, inner), LocalMask(0, 0, np.zeros((0, 0), bool)), LocalMask(3, 4, np.ones((5, 6), bool))]
    rles = [encode_rle(mask, 60, 80) for mask in masks]
    boxes = np.array([[20, 10, 29, 16], [5, 5, 9, 9], [3, 4, 9, 9]], np.float64)
    found, changed = narrowed(boxes, rles)
    assert found.tolist() == [[21, 12, 28, 14], [5, 5, 9, 9], [3, 4, 9, 9]]
    assert changed.tolist() == [True, False, False]
    # Within the box that was given, and not at all where the mask stands beside it.
    found, changed = narrowed(np.array([[21.5, 12, 25, 13.5], [40, 40, 50, 50.0]]), [rles[0], rles[0]])
    assert found.tolist() == [[21.5, 12, 25, 13.5], [40, 40, 50, 50]] and not changed.any()
    assert narrowed(np.zeros((0, 4)), [])[0].shape == (0, 4)


@pytest.mark.parametrize("decode", ["cpu", "scaled"])
def test_masks_are_those_of_the_narrower_boxes(tmp_path: Path, tiny_model: Write, data_set: Write, decode: str) -> None:
    images, boxes = data_set(pictures=4)
    boxes, model = loosened(boxes), tiny_model()
    once, twice, again = (tmp_path / f"{name}.json" for name in ("once", "twice", "again"))
    label(images, boxes, model, once, **OPTIONS)
    label(images, boxes, model, twice, decode=decode, second_pass=True, **OPTIONS)
    document = json.loads(once.read_text())
    for record in document["annotations"]:
        mask = decode_rle(record["segmentation"])
        rows, columns = mask.mask.shape
        x, y, w, h = record["bbox"]
        low, high = (max(mask.x0, x), max(mask.y0, y)), (min(mask.x0 + columns, x + w), min(mask.y0 + rows, y + h))
        record["bbox"] = [*low, high[0] - low[0], high[1] - low[1]]
    narrow = tmp_path / "narrow.json"
    narrow.write_text(json.dumps(document))
    label(images, narrow, model, again, **OPTIONS)
    found, expected = annotations(twice), annotations(again)
    assert [r["segmentation"] for r in found] == [r["segmentation"] for r in expected]
    assert [r["segmentation"] for r in found] != [r["segmentation"] for r in annotations(once)]
    assert [r["bbox"] for r in found] == [r["bbox"] for r in annotations(once)], "boxes stay as they were given"

    with Labeler(model, "cpu", second_pass=True, decode=decode) as labeler:
        for number in (1, 2):
            own = [r for r in found if r["image_id"] == number]
            picture = images / f"{number:012d}.png"
            assert labeler(picture, [r["bbox"] for r in own], "xywh").rle == [r["segmentation"] for r in own]


def test_a_stopped_run_goes_on(
    tmp_path: Path, coupled: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each pass, to the same bytes."""
    images, boxes, model = coupled
    whole, out = tmp_path / "whole.json", tmp_path / "labels.json"
    original, calls = Predictor.run, 0
    stop = 0

    def run(self: Predictor, *given: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise RunError("stopped")
        return original(self, *given)

    monkeypatch.setattr(Predictor, "run", run)
    label(images, boxes, model, whole, second_pass=True, **OPTIONS)
    needed = calls
    for stop in (3, needed // 2 + 3, needed):
        calls = 0
        with pytest.raises(RunError, match="stopped"):
            label(images, boxes, model, out, second_pass=True, **OPTIONS)
        stop, calls = 0, 0
        with pytest.raises(InputError, match="second pass was True, now not given"):
            label(images, boxes, model, out, resume=True, **OPTIONS)
        label(images, boxes, model, out, second_pass=True, resume=True, **OPTIONS)
        assert out.read_bytes() == whole.read_bytes()
        assert not list(tmp_path.glob("*.journal*"))
        out.unlink()


def test_what_the_second_pass_does_not_find_stays(tmp_path: Path, data_set: Write) -> None:
    images, boxes = data_set(pictures=1, size=(80, 80))
    journal = Journal(tmp_path / "journal")
    write_plan(journal, {}, boxes, None, open_images(images), 4)
    square = rle_json(encode_rle(LocalMask(10, 12, np.ones((8, 8), bool)), 80, 80))
    smaller = rle_json(encode_rle(LocalMask(11, 13, np.ones((4, 4), bool)), 80, 80))
    nothing = rle_json(encode_rle(LocalMask(0, 0, np.zeros((0, 0), bool)), 80, 80))
    passes: list[Sequence[int]] = []

    def labelling(name: str) -> None:
        chunks = list(journal.chunks())
        passes.append([int(seq) for chunk in chunks for seq in chunk.seq])
        if name == "labelling":
            journal.add([Result(0, square, 64, None, None, 0.5), Result(1, nothing, 0, None, None, 0.1)])
            journal.add([Result(2, square, 64, None, None, 0.4), Result(3, None, None, "missing", "gone")])
        else:
            (chunk,) = chunks
            assert chunk.box.tolist() == [[10, 12, 18, 20]], "boxes of the mask; the other two boxes lie elsewhere"
            journal.add([Result(0, *second)])

    for second in ((smaller, 16), (None, None, "damaged", ""), (nothing, 0)):
        passes.clear()
        in_passes(journal, 4, True, labelling)
        rows = journal.execute("SELECT seq, rle, area, reason FROM result ORDER BY seq").fetchall()
        first = (0, smaller, 16, None) if second[0] == smaller else (0, square, 64, None)
        assert rows == [first, (1, nothing, 0, None), (2, square, 64, None), (3, None, None, "missing")]
        assert passes[-1] == [0]
        journal.execute("DELETE FROM result WHERE seq = 0")  # as if the second pass had been stopped
    journal.close()


def test_an_empty_second_mask_leaves_the_first(tiny_model: Write) -> None:
    picture = np.full((120, 120, 3), 20, np.uint8)
    picture[40:80, 40:80] = 235
    with closing(Predictor(tiny_model(), "cpu")) as predictor:
        masker = CpuMasker(predictor)
        frames = Frames.of([predictor.frame((20, 20, 100, 100), 120, 120)])
        masks = draw(masker, [picture], frames, SizeClass.MEDIUM)
        assert masks[0].area > 1000
        kept = masker.masks

        def emptied(batch: Batch, logits: bool = False) -> list[Mask | None]:
            return [mask and mask._replace(area=0) for mask in kept(batch, logits)]

        masker.masks = emptied  # type: ignore[method-assign]
        used, found = draw_again(predictor, masker, [picture], frames, masks)
        assert found == masks and used.box.tolist() == frames.box.tolist()
        masker.masks = kept  # type: ignore[method-assign]
        used, found = draw_again(predictor, masker, [picture], frames, masks)
        assert used.box.tolist() == narrowed(frames.box, [masks[0].rle])[0].tolist() != frames.box.tolist()


def test_a_folder_that_drops_in_the_second_pass(
    tmp_path: Path, coupled: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its boxes are pending again, in the batches of that pass, rather than left with their first masks."""
    images, boxes, model = coupled
    whole, out = tmp_path / "whole.json", tmp_path / "labels.json"
    label(images, boxes, model, whole, second_pass=True, **OPTIONS)
    away = tmp_path / "away"

    def drop(journal: Journal, batch: int) -> None:
        narrow(journal, batch)
        images.rename(away)
        images.mkdir()

    narrow = narrowing._narrow
    monkeypatch.setattr(narrowing, "_narrow", drop)
    with pytest.raises(RunError, match="is gone or empty now"):
        label(images, boxes, model, out, second_pass=True, **OPTIONS)
    images.rmdir()
    away.rename(images)
    summary = label(images, boxes, model, out, second_pass=True, resume=True, **OPTIONS)
    assert out.read_bytes() == whole.read_bytes() and summary.resumed < summary.labelled


def test_boxes_of_the_first_pass_are_not_done(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=2)
    boxes, model, out = loosened(boxes), tiny_model(), tmp_path / "labels.json"
    with monkeypatch.context() as patch:
        patch.setattr(narrowing, "_narrow", lambda *_: (_ for _ in ()).throw(RunError("stopped")))
        with pytest.raises(RunError, match="stopped"):
            label(images, boxes, model, out, second_pass=True, **OPTIONS)
    summary = label(images, boxes, model, out, second_pass=True, resume=True, **OPTIONS)
    assert summary.resumed == 0 and summary.labelled == 12


def test_planning_the_second_pass_of_many_pictures_takes_an_index(tmp_path: Path, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    journal = Journal(tmp_path / "journal")
    write_plan(journal, {}, boxes, None, open_images(images), 4)
    narrowing._narrow(journal, 4)
    how = journal.execute(f"EXPLAIN QUERY PLAN {narrowing.LEAST}").fetchall()
    assert any("INDEX narrowed_image" in str(row) for row in how), how
    journal.close()


def test_too_large_boxes_are_told_of(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=10)
    model = tiny_model()
    for name, document, second, told in (
        ("exact", boxes, False, False),
        ("loose", loosened(boxes, 5), False, True),
        ("twice", loosened(boxes, 5), True, False),
    ):
        out = tmp_path / f"labels-{name}.json"
        summary = label(images, document, model, out, second_pass=second, **OPTIONS)
        assert any("--second-pass draws better masks" in note for note in summary.notes) == told, name


def test_other_verbs(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=2)
    model = tiny_model()
    label(images, boxes, model, tmp_path / "truth.json", **OPTIONS)
    loose = loosened(tmp_path / "truth.json")
    once, twice = (
        evaluate(images, loose, model=model, device="cpu", progress=False, second_pass=second)["miou"]
        for second in (False, True)
    )
    assert twice > once
    for second in (False, True):
        told = forecast(images, boxes, model, tmp_path / "new.json", device="cpu", second_pass=second)
        assert told.seconds == pytest.approx(told.boxes * (1 + second) * told.measured_seconds / told.measured)


def test_a_picture_without_boxes_to_narrow(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    """A black picture has empty masks: there is no second pass, and no error."""
    images, boxes = data_set(pictures=1)
    for file in images.iterdir():
        Image.new("RGB", (120, 80)).save(file)
    label(images, boxes, tiny_model(), tmp_path / "labels.json", second_pass=True, **OPTIONS)
    assert {record["area"] for record in annotations(tmp_path / "labels.json")} == {0}
