"""Label-time options: refinement by colour, and thresholds by how well a mask fills its box."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt import Labeler, label
from mal_trt.base.errors import InputError
from mal_trt.distributed import label_shards
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.dry_run import forecast
from mal_trt.labelling.predictor import Predictor

Write = Callable[..., Any]


def test_options_reach_the_masks(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model(gain=2.0)
    found = {}
    for name, options in {"plain": {}, "tight": {"threshold": "tight"}, "color": {"refine": "color"}}.items():
        out = tmp_path / f"{name}.json"
        label(images, boxes, model, out, device="cpu", progress=False, **options)
        found[name] = [a["segmentation"] for a in json.loads(out.read_text())["annotations"]]
    assert found["plain"] != found["tight"] and found["plain"] != found["color"]
    record = json.loads(boxes.read_text())["annotations"][0]
    picture = images / "000000000001.png"
    by_api = Labeler(model, "cpu", refine="color")(picture, [record["bbox"]], format="xywh")
    assert by_api.rle[0] == found["color"][0]


def test_bad_options(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    with pytest.raises(InputError, match="refine colour: expected none or color"):
        Predictor(tiny_model(), "cpu", refine="colour")
    with pytest.raises(InputError, match="or tight"):
        Predictor(tiny_model(), "cpu", threshold="loose")
    images, boxes = data_set(pictures=1)
    given: Any
    for run in (label, forecast, label_shards):
        for given in ({"threads": 0}, {"device": None}, {"model": None}, {"batch": 0}):
            options = {"model": tiny_model(), "out": tmp_path / "out", "device": "cpu", **given}
            with pytest.raises(InputError, match=f"{next(iter(given))} "):
                run(images, boxes, **options)
    assert Predictor(tiny_model(), "cpu", refine="color").run(np.zeros((1, 3, 64, 64), np.uint8), SizeClass.SMALL).any()
