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
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame
from mal_trt.geometry.masks import TIGHT, TIGHT_IOU, LocalMask, mask_from_logits, tight_threshold
from mal_trt.geometry.refine import refine_colour
from mal_trt.labelling.predictor import Predictor
from mal_trt.measure.evaluate import evaluate

Write = Callable[..., Any]


def probability(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, Any]:
    """A red disc on green in a 64 px crop, a box around it, and where the disc is on a 16 x 16 grid."""
    y, x = np.mgrid[:64, :64]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < 18**2
    noise = np.random.default_rng(0).integers(0, 30, (3, 64, 64))
    crop = np.where(inside, np.array([200, 30, 30])[:, None, None], np.array([30, 160, 40])[:, None, None]) + noise
    frame = make_frame((14, 14, 50, 50), 64, 64, 64, 64 / 36 - 1)
    return crop.astype(np.uint8), inside.reshape(16, 4, 16, 4).mean(axis=(1, 3)), frame


def test_colour_turns_a_soft_box_into_the_object(scene: Any) -> None:
    crop, share, frame = scene
    y, x = np.mgrid[:16, :16] - 7.5
    blob = 1.5 - np.maximum(np.abs(x), np.abs(y)) / 4  # a vague notion of the middle, with the box's corners
    inner = np.zeros((16, 16), bool)
    inner[frame.inner[1] // 4 : frame.inner[3] // 4, frame.inner[0] // 4 : frame.inner[2] // 4] = True
    refined = probability(refine_colour(blob.astype(np.float32), crop, frame))
    truth, sure = share > 0.5, (share < 0.1) | (share > 0.9)
    before, after = ((p > 0.5) != truth for p in (probability(blob) * inner, refined))
    assert (after & sure).sum() == 0 and (before & sure).sum() > 0
    assert refined[0].max() < 0.01  # nothing outside the box


def test_the_same_as_the_training_target(scene: Any) -> None:
    torch = pytest.importorskip("torch")
    colour = pytest.importorskip("mal_trt.training.colour")
    crop, _, frame = scene
    logits = np.random.default_rng(3).normal(0, 2, (16, 16)).astype(np.float32)
    small = torch.from_numpy(crop.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)) / 255)[None]
    box = np.zeros((64, 64), np.float32)
    x0, y0, x1, y1 = frame.inner
    box[y0:y1, x0:x1] = 1
    q = torch.from_numpy(probability(logits) * box.reshape(16, 4, 16, 4).mean(axis=(1, 3)))[None, None]
    expected = (colour.colour_likelihood(q.double(), small.double()) * q).sqrt()[0, 0].numpy()
    np.testing.assert_allclose(probability(refine_colour(logits, crop, frame)), expected.clip(1e-6), atol=1e-5)


def test_any_logits_and_crops_stay_finite(scene: Any) -> None:
    crop, _, frame = scene
    for value in (-1e4, 0.0, 1e4):
        for pixels in (crop, np.zeros_like(crop), crop.astype(np.float32)):
            assert np.isfinite(refine_colour(np.full((16, 16), value, np.float32), pixels, frame)).all()


@pytest.mark.parametrize("seed", range(8))
def test_tight_threshold_by_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = 90, 70
    x0, y0 = rng.uniform(0, 40), rng.uniform(0, 30)
    box = (x0, y0, x0 + rng.uniform(15, 45), y0 + rng.uniform(15, 35))
    frame = make_frame(box, width, height, 64)
    y, x = np.mgrid[:16, :16] - 7.5
    logits = (rng.uniform(0, 3) - (x**2 + y**2) / rng.uniform(5, 20)).astype(np.float32)

    def bounds(local: LocalMask) -> np.ndarray:
        """The mask's bounding box, filled, on the whole picture."""
        canvas = local.full(height, width)
        return np.asarray(canvas.any(axis=1)[:, None] & canvas.any(axis=0))

    whole = bounds(mask_from_logits(np.full((16, 16), 50, np.float32), frame, 0.5))

    def fits(threshold: float) -> bool:
        own = bounds(mask_from_logits(logits, frame, threshold))
        return bool((own & whole).sum() >= TIGHT_IOU * (own | whole).sum())

    assert tight_threshold(logits, frame) == next((t for t in TIGHT if fits(t)), TIGHT[-1])
    assert tight_threshold(np.full((16, 16), -50, np.float32), frame) == TIGHT[-1]
    assert tight_threshold(np.full((16, 16), 50, np.float32), frame) == TIGHT[0]


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
    assert Predictor(tiny_model(), "cpu", refine="color").run(np.zeros((1, 3, 64, 64), np.uint8), SizeClass.SMALL).any()


def test_evaluate_takes_them(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model(gain=2.0)
    label(images, boxes, model, tmp_path / "truth.json", device="cpu", progress=False, refine="color")
    result = evaluate(images, tmp_path / "truth.json", model, device="cpu", progress=False, refine="color")
    assert result["miou"] == pytest.approx(1.0, abs=1e-6)
    plain = evaluate(images, tmp_path / "truth.json", model, device="cpu", progress=False)
    assert plain["miou"] < 0.999
