"""`evaluate --worst`: the lowest IoUs, both outlines where the masks are, and what keeps it from being written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.formats.images import open_images
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.measure.evaluate import evaluate
from mal_trt.measure.worst import DRAWN, FOUND, MISSING, MOST, ScoredObject, Worst

DRAWN_MASK = encode_rle(LocalMask(10, 10, np.ones((20, 20), bool)), 60, 80)
FOUND_MASK = encode_rle(LocalMask(40, 10, np.ones((20, 20), bool)), 60, 80)


def seen(key: int, iou: float = 0.0, found: dict[str, Any] = FOUND_MASK, name: str = "a.png") -> ScoredObject:
    return ScoredObject(key, "thing " * key, iou, [10, 10, 50, 20], {"file_name": name}, found, DRAWN_MASK)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (80, 60), (0, 0, 200)).save(folder / "a.png")
    return folder


def has(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.asarray((sheet == colour).all(axis=2))


def test_the_lowest_are_kept_the_worst_first() -> None:
    worst = Worst()
    order = np.random.default_rng(0).permutation(500)
    for key in order:
        worst.add(seen(int(key), float(key) / 500))
    assert [s.key for s in worst.kept] == list(range(MOST))


def test_both_outlines_lie_on_the_crop(pictures: Path) -> None:
    worst = Worst()
    worst.add(seen(1))
    sheet = np.asarray(worst.draw(open_images(pictures)))
    tile = np.nonzero(has(sheet, (0, 0, 200)))
    top, left = tile[0].min(), tile[1].min()
    crop = sheet[top:, left : left + 320]
    drawn, found = np.nonzero(has(crop, DRAWN)), np.nonzero(has(crop, FOUND))
    # The crop shows 6 more pixels of the picture on every side of what is 50 wide, 320 pixels for 62 of them.
    scale = 320 / 62
    for (ys, xs), x0 in ((drawn, 10), (found, 40)):
        edges = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
        wanted = [(v - o) * scale for v, o in ((x0, 4), (x0 + 20, 4), (10, 4), (30, 4))]
        assert edges == pytest.approx(wanted, abs=2)
    middle = crop[round(16 * scale), round(16 * scale)]
    assert tuple(middle) == (0, 0, 200), "an outline, not a filled mask"


def test_an_empty_mask_and_a_picture_that_is_missing(pictures: Path) -> None:
    worst = Worst()
    worst.add(seen(30, found=encode_rle(LocalMask(0, 0, np.zeros((0, 0), bool)), 60, 80), name="absent.png"))
    sheet = np.asarray(worst.draw(open_images(pictures)))
    assert has(sheet, MISSING).sum() > 10_000
    assert has(sheet[40:], DRAWN).any() and not has(sheet[40:], FOUND).any()


def test_a_name_of_several_lines_is_one_caption(pictures: Path) -> None:
    worst = Worst()
    worst.add(replace(seen(1), key="a\nb", name="tall\nand wide" * 1000))
    assert worst.draw(open_images(pictures)).width > 320


def document(drawn: bool = True) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 5, "category_id": 2, "bbox": [10, 10, 20, 20]}
    return {
        "images": [{"id": 5, "file_name": "a.png", "width": 80, "height": 60}],
        "categories": [{"id": 2, "name": "thing"}],
        "annotations": [{**annotation, **({"segmentation": DRAWN_MASK} if drawn else {})}],
    }


def test_evaluate_writes_it(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(document()))
    (tmp_path / "bare.json").write_text(json.dumps(document(drawn=False)))
    (tmp_path / "labels.json").write_text(json.dumps([{"id": 1, "segmentation": FOUND_MASK}]))
    (tmp_path / "points.json").write_text(json.dumps({"points": [{"annotation_id": 1, "inside": [[1, 2]]}]}))
    labels, out = tmp_path / "labels.json", tmp_path / "worst.png"
    evaluate(pictures, tmp_path / "truth.json", labels=labels, worst_out=out)
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > 320
    out.unlink()
    for wrong, said in (("worst.jpg", r"ends in \.png"), ("absent/worst.png", "folder does not exist")):
        with pytest.raises(InputError, match=said):
            evaluate(pictures, tmp_path / "truth.json", labels=labels, worst_out=tmp_path / wrong)
    with pytest.raises(NothingDone, match="no drawn mask"):
        evaluate(pictures, tmp_path / "bare.json", labels=labels, points=tmp_path / "points.json", worst_out=out)
    assert not out.exists()
