"""That training learns: shapes from their boxes alone, and a few real boxes by heart. The published losses."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

torch = pytest.importorskip("torch")

from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.geometry.paste import mask_from_logits
from mal_trt.training.augment import normalise
from mal_trt.training.config import TrainConfig
from mal_trt.training.loop import train
from mal_trt.training.losses import mil_loss, resize
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.threshold import box_agreement
from mal_trt.training.trainer import Trainer

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
SIDE = 96
CPU_SECONDS = 180


def config(folder: Path, images: Path, boxes: Path, **more: object) -> TrainConfig:
    """A small network, rates for a start from nothing, and warm-ups as short as the run; all else as published."""
    values = {
        "arch": "vit-mal-tiny/16",
        "layout": "hybrid",
        "depth": 1,
        "head_width": 32,
        "adjust_scale": False,
        "crop_size": SIDE,
        "betas": (0.9, 0.98),
        "crf_steps": 1,
        "min_area": 100,
        "device": "cpu",
        "workers": 0,
        "preload": True,
        "picture_steps": 0,
        "checkpoint_epochs": None,
        **more,
    }
    return TrainConfig(images=(images,), boxes=(boxes,), out=folder / "run", **values)  # type: ignore[arg-type]


def texture(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Clouds around a colour, with a fine grain; float [SIDE,SIDE,3]."""
    clouds = rng.normal(0, 12, (SIDE // 12, SIDE // 12, 3)).astype(np.float32)
    grown = [
        np.asarray(Image.fromarray(clouds[..., c]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for c in range(3)
    ]
    return colour + np.stack(grown, -1) + rng.normal(0, 1.5, (SIDE, SIDE, 3))


def figure(rng: np.random.Generator) -> np.ndarray:
    """An ellipse or an uneven polygon of 3 to 7 corners; bool [SIDE,SIDE]."""
    corners = int(rng.integers(3, 8)) if rng.random() < 0.6 else 48
    angle = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = np.full(corners, 4 * SIDE * rng.uniform(0.2, 0.34))
    flat = rng.uniform(0.5, 1)
    if corners < 48:
        angle, radius, flat = angle + rng.uniform(-0.3, 0.3, corners), radius * rng.uniform(0.6, 1, corners), 1.0
    turn = rng.uniform(0, np.pi)
    x, y = np.cos(angle) * radius, np.sin(angle) * radius * flat
    centre = 2 * SIDE + rng.uniform(-0.3 * SIDE, 0.3 * SIDE, 2)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1) + centre
    canvas = Image.new("L", (SIDE * 4, SIDE * 4))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in points.tolist()], fill=255)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX)) > 127


def test_boxes_alone_teach_shapes(tmp_path: Path) -> None:
    """From the boxes of 32 pictures: mIoU >= 0.85 against masks that training never sees."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    images, boxes, masks, fills = [], [], [], []
    for i in range(32):
        ground = rng.uniform(60, 195, 3)
        other = ground + rng.choice([-1, 1], 3) * rng.uniform(35, 60, 3)
        mask = figure(rng)
        picture = np.where(mask[..., None], texture(rng, other), texture(rng, ground))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
        ys, xs = np.nonzero(mask)
        x, y = int(xs.min()), int(ys.min())
        width, height = int(xs.max()) + 1 - x, int(ys.max()) + 1 - y
        fills.append(mask.sum() / (width * height))
        images.append({"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE})
        boxes.append({"id": i, "image_id": i, "category_id": 1, "bbox": [x, y, width, height]})
        edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
        runs = np.diff([0, *edges, mask.size]).tolist()
        masks.append({**boxes[-1], "segmentation": {"size": [SIDE, SIDE], "counts": runs}})
    document = {"images": images, "categories": [{"id": 1, "name": "figure"}]}
    (tmp_path / "boxes.json").write_text(json.dumps({**document, "annotations": boxes}))
    (tmp_path / "masks.json").write_text(json.dumps({**document, "annotations": masks}))
    assert np.mean(fills) < 0.7, "the boxes themselves are no answer"

    plan = config(
        tmp_path, tmp_path / "pictures", tmp_path / "boxes.json", val_images=tmp_path / "pictures",
        val_boxes=tmp_path / "masks.json", val_weights="teacher", thresholds=(0.5,), batch=8, epochs=150.0, lr=1e-4,
        mil_steps=100, teacher_momentum=0.98, validate_epochs=150.0,
    )  # fmt: skip
    started = time.process_time()
    train(plan)
    assert time.process_time() - started < CPU_SECONDS
    with (plan.out / "val.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["miou"]) >= 0.85


def test_real_boxes_are_fitted(tmp_path: Path) -> None:
    """21 boxes on seven photos: every row and column of a box is touched, by masks smaller than the box."""
    plan = config(
        tmp_path, EXAMPLES / "photos", EXAMPLES / "boxes.json", batch=7, epochs=110.0, lr=2e-4, warmup_epochs=2.0,
        mil_steps=50, teacher_momentum=0.95,
    )  # fmt: skip
    trainer = Trainer(plan, 3)
    trainer.restore(train(plan))
    boxes = read_training_boxes(plan.images, plan.boxes, 0, 1e10)
    assert len(boxes) == 21
    projections, agreements, fills = [], [], []
    for picture, box in zip(boxes.picture, boxes.boxes, strict=True):
        pixels = boxes.pictures[picture].read()
        frame = make_frame(box, pixels.shape[1], pixels.shape[0], SIDE)
        crop = torch.from_numpy(read_crop(pixels, frame.extended, SIDE).copy())[None]
        with torch.inference_mode():
            logits = trainer.student.eval()(normalise(crop), torch.tensor([frame.area]))
        inside = torch.zeros(1, 1, SIDE, SIDE)
        x0, y0, x1, y1 = frame.inner
        inside[..., y0:y1, x0:x1] = 1
        projections.append(mil_loss(logits.sigmoid(), resize(inside, (SIDE // 4, SIDE // 4))).item())
        mask = mask_from_logits(logits[0, 0].numpy(), frame, 0.5)
        agreements.append(box_agreement(mask, box))
        fills.append(mask.area / frame.area)
    assert np.mean(projections) < 0.1, "of 2"
    assert np.mean(agreements) > 0.9
    assert np.mean(fills) < 0.9
