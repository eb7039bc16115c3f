"""--slack: a mask may leave its box, by so much and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt import Labeler, label
from mal_trt.base.errors import InputError
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame
from mal_trt.geometry.paste import mask_from_logits

Write = Callable[..., Any]
FULL = np.full((64, 64), 20, np.float32)


@pytest.mark.parametrize("slack", [0.0, 0.1, 0.15])
def test_a_mask_reaches_as_far_as_the_slack(slack: float) -> None:
    frame = make_frame((100, 80, 300, 180), 640, 480, 192, 0.6, slack)
    plain = make_frame((100, 80, 300, 180), 640, 480, 192, 0.6)
    assert (frame.extended, frame.area, frame.size_class) == (plain.extended, plain.area, SizeClass.LARGE)
    mask = mask_from_logits(FULL, frame, 0.5).full(480, 640)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    reach = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    wanted = [100 - 200 * slack, 80 - 100 * slack, 300 + 200 * slack, 180 + 100 * slack]
    assert reach == pytest.approx(wanted, abs=2)


def test_not_beyond_the_picture() -> None:
    frame = make_frame((0, 2, 60, 50), 64, 50, 192, 0.6, 0.15)
    mask = mask_from_logits(FULL, frame, 0.5).full(50, 64)
    assert mask.all()


def test_more_than_the_model_sees_is_refused(tiny_model: Write) -> None:
    with pytest.raises(InputError, match=r"slack 0\.2: expected 0 to 0\.15; the model sees no more around a box"):
        Labeler(tiny_model(), "cpu", slack=0.2)


def test_labels_with_slack(data_set: Write, tiny_model: Write, tmp_path: Path) -> None:
    images, boxes = data_set()
    model = tiny_model(gain=2.0)
    found = {}
    for slack in (0.0, 0.15):
        out = tmp_path / f"{slack}.json"
        label(images, boxes, model, out, device="cpu", slack=slack, progress=False)
        found[slack] = json.loads(out.read_text())["annotations"]
    assert [r["bbox"] for r in found[0.0]] == [r["bbox"] for r in found[0.15]], "the boxes stay as they were given"
    grown = [after["area"] - before["area"] for before, after in zip(found[0.0], found[0.15], strict=True)]
    assert min(grown) >= 0 and max(grown) > 0
    label(images, boxes, model, tmp_path / "0.15.json", device="cpu", slack=0.15, progress=False, resume=True)
    with pytest.raises(InputError, match="slack"):
        label(images, boxes, model, tmp_path / "0.15.json", device="cpu", slack=0.1, progress=False, resume=True)
