"""The draw of boxes is even and disjoint, and its crops are those that labelling cuts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx")

from mal_trt.base.errors import NothingDone
from mal_trt.calibration.graph import load_onnx
from mal_trt.calibration.sample import Losses, crops, draw, split
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.predictor import Predictor

Write = Callable[..., Any]


def test_draw_is_even_and_the_same_each_time(pictures: Write) -> None:
    sources = [pictures()]
    drawn = draw(sources, 18)
    assert Counter(spot.size for spot in drawn) == dict.fromkeys(SizeClass, 6)
    assert len({spot.picture for spot in drawn if spot.size is SizeClass.SMALL}) == 6
    assert draw(sources, 18) == drawn and len(draw(sources, 1000)) == 36
    learn, held = split(drawn, (12, 6))
    assert len(learn) == 12 and len(held) == 6 and not [spot for spot in held if spot in learn]
    assert set(Counter(spot.size for spot in held)) == set(SizeClass)
    assert split(drawn, (18, 0)) == (drawn, [])


def test_a_class_that_is_short_is_made_up_for(pictures: Write) -> None:
    images, boxes = pictures()
    document = json.loads(boxes.read_text())
    large = [a for a in document["annotations"] if a["bbox"][2] > 100]
    rest = [a for a in document["annotations"] if a["bbox"][2] <= 100]
    boxes.write_text(json.dumps({**document, "annotations": rest + large[:2]}))
    counts = Counter(spot.size for spot in draw([(images, boxes)], 20))
    assert counts[SizeClass.LARGE] == 2 and counts[SizeClass.SMALL] == counts[SizeClass.MEDIUM] == 9
    with pytest.raises(NothingDone, match="no boxes in it, so none was used"):
        boxes.write_text(json.dumps({**document, "annotations": []}))
        draw([(images, boxes)], 20)


def test_most_boxes_without_a_picture(pictures: Write) -> None:
    images, boxes = pictures()
    document = json.loads(boxes.read_text())
    kept = sorted(images.iterdir())[0]
    for path in images.iterdir():
        if path != kept:
            path.unlink()
    warnings: list[str] = []
    assert draw([(images, boxes)], 1000, warnings)
    total = len(document["annotations"])
    assert len(warnings) == 1 and f"of {total} boxes of {boxes} cannot be used, most because" in warnings[0]


def test_crops_are_those_of_labelling(encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures(masks=True)
    _, contract, _ = load_onnx(model)
    predictor = Predictor(model, "cpu")
    seen = 0
    for batch in crops(draw([(images, boxes)], 36), contract, 5):
        assert {spot.size for spot in batch.spots} == {batch.size} and len(batch.image) <= 5
        for image, frame, spot in zip(batch.image, batch.frames, batch.spots, strict=True):
            pixels = np.asarray(Image.open(images / spot.picture))
            assert frame == predictor.frame(spot.box, spot.width, spot.height)
            into = predictor.batch(1, SizeClass.LARGE)[0]
            predictor.crop(pixels, frame, into)
            np.testing.assert_array_equal(image, into)
            x, y, w, h = spot.record["bbox"]
            assert spot.box == (x, y, x + w, y + h) and spot.truth is not None
            seen += 1
    assert seen == 36


def test_what_gives_no_crop_is_counted(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    images, boxes = pictures()
    _, contract, _ = load_onnx(encoder())
    (images / "0.png").write_bytes(b"")
    (images / "1.png").unlink()
    Image.new("RGB", (320, 200), (9, 9, 9)).save(images / "2.png")
    losses = Losses()
    drawn = draw([(images, boxes)], 36)
    found = list(crops(drawn, contract, 8, losses, skip_blank=True))
    assert sum(len(batch.spots) for batch in found) == 27
    assert losses.unreadable == 3 and losses.blank == 3 and len(losses.reasons) == 1, "what is missing is never drawn"
    assert sum(len(batch.spots) for batch in crops(drawn, contract, 8)) == 30
