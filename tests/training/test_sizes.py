"""Training at a side of crops for each size of box: batches of one size, exact resumption, what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from killed_run import ended_at, same_weights
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.cli.options import sides
from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig, recipe_config
from mal_trt.training.loop import launched, prepare_run, train
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.one_size import by_size, drawn_area, size_classes
from mal_trt.training.spec import read_spec, spec_text
from mal_trt.training.start import completed

SIZES = (32, 64, 96)
# Sides of square boxes: eight small, six medium and five large ones.
BOXES = [20, 22, 24, 26, 28, 30, 31, 32, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140]


@pytest.fixture
def plan(tmp_path: Path) -> TrainConfig:
    """Two epochs of four batches of four boxes on a very small network."""
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i, side in enumerate(BOXES):
        picture = rng.integers(0, 255, (150, 160, 3), np.uint8)
        picture[5 : 5 + side, 8 : 8 + side] //= 4
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 150})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [8, 5, side, side]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return recipe_config(
        "small",
        images=(tmp_path / "pictures",),
        boxes=(tmp_path / "boxes.json",),
        out=tmp_path / "run",
        arch="mal-lite0",
        start_from=None,
        sizes=SIZES,
        depth=0,
        head_width=16,
        batch=4,
        epochs=2.0,
        figures=0.3,
        min_area=100,
        device="cpu",
        workers=0,
        crf_iterations=3,
        picture_steps=0,
    )


def batches(plan: TrainConfig) -> list[dict[str, Any]]:
    with launched(plan, None, False) as (fabric, console, _):
        return list(prepare_run(plan, fabric, console).loader())


def test_a_batch_holds_boxes_of_one_size(plan: TrainConfig) -> None:
    sides_seen = Counter()
    for batch in batches(plan):
        (count, side, _, _) = batch["student"].shape
        assert count == 4 and batch["mask"].shape == (4, side, side)
        areas = batch["area"].numpy()
        classes = np.searchsorted([32**2, 96**2], areas)
        assert {SIZES[size] for size in classes} == {side}  # of figures too
        sides_seen[side] += 1
    assert set(sides_seen) == set(SIZES) and sides_seen.total() == 8


def test_by_size() -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(100)
    classes = np.digitize(order, [60, 97])  # 60, 37 and 3 rows
    found = by_size(order, classes, 8, rng)
    groups = found.reshape(12, 8)
    assert len(found) == 96
    of_group = np.digitize(groups, [60, 97])
    assert (of_group == of_group[:, :1]).all()
    assert Counter(of_group[:, 0].tolist()) == {0: 7, 1: 4, 2: 1}
    assert set(groups[of_group[:, 0] == 2].ravel()) == {97, 98, 99}  # too few: they come again
    small = groups[of_group[:, 0] == 0].ravel()
    assert len(set(small)) == 56  # too many: each at most once
    np.testing.assert_array_equal(by_size(order, np.zeros(100, int), 8, rng), order[:96])
    np.testing.assert_array_equal(by_size(order[:5], classes[:5], 8, rng), order[:5])


def test_figures_are_drawn_with_areas_of_their_class() -> None:
    rng = np.random.default_rng(2)
    for size in range(3):
        areas = [drawn_area(size, rng) for _ in range(200)]
        corners = np.array([[0, 0, area, 1] for area in areas])
        assert set(size_classes(corners)) == {size}


def test_a_killed_run_resumes_to_the_same_weights(plan: TrainConfig) -> None:
    whole = train(replace(plan, out=plan.out / "whole"), show=False)
    plan = replace(plan, out=plan.out / "killed", checkpoint_minutes=0.0)
    with ended_at(5, KeyboardInterrupt):
        train(plan, show=False)
    with pytest.raises(InputError, match="was trained with another sizes"):
        train(replace(plan, resume=True, sizes=(32, 32, 96)), show=False)
    again = train(replace(plan, resume=True), show=False)
    same_weights(again, whole)
    config = read_checkpoint(again).config
    assert config is not None and config.sizes == SIZES and config.crop_size == 96


def test_judged_at_the_same_sizes(plan: TrainConfig) -> None:
    """By box criteria, and against drawn masks."""
    document = json.loads(plan.boxes[0].read_text())
    for record in document["annotations"]:
        x, y, width, height = record["bbox"]
        record["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    masks = plan.out.parent / "val.json"
    masks.write_text(json.dumps(document))
    once = replace(plan, epochs=1.0)
    train(replace(once, out=plan.out / "fit", patience=1), show=False)
    assert (plan.out / "fit" / "fit.csv").read_text().count("\n") >= 2
    train(replace(once, out=plan.out / "val", val_boxes=masks, val_images=plan.images[0]), show=False)
    assert (plan.out / "val" / "val.csv").read_text().count("\n") >= 2


def test_crops_of_any_side_go_through_one_network() -> None:
    network = build_network(NetworkConfig("mal-lite0", crop_size=96, sizes=SIZES, depth=1)).eval()
    for side in SIZES:
        with torch.no_grad():
            assert network(torch.zeros(2, 3, side, side), torch.zeros(2)).shape == (2, 1, side // 4, side // 4)


def test_an_encoder_of_one_size_is_refused() -> None:
    config = NetworkConfig("mal-timm:swinv2_cr_tiny_224", crop_size=224, sizes=(64, 96, 224))
    with pytest.raises(InputError, match="mal-timm:swinv2_cr_tiny_224: does not take crops of 64 px too"):
        build_network(config)


def test_spec_and_recipe_carry_the_sizes(tmp_path: Path) -> None:
    config = recipe_config("small", images=(), boxes=(), out=Path("run"), sizes=SIZES)
    assert config.crop_size == 96
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text(config))
    values = read_spec(spec)
    assert values["sizes"] == SIZES and values["crop_size"] == 96
    with pytest.raises(InputError, match="crop size 128: the sizes end with 96"):
        recipe_config("small", images=(), boxes=(), out=Path("run"), sizes=SIZES, crop_size=128)
    with pytest.raises(InputError, match=r"dataset\.sizes: 2 values; expected 3"):
        read_spec(None, ["dataset.sizes=[32,64]"])


def test_tuning_goes_on_at_the_sizes_of_the_checkpoint(plan: TrainConfig) -> None:
    start = train(replace(plan, epochs=1.0), show=False)
    assert completed({"start_from": start})[0]["sizes"] == SIZES
    given = completed({"start_from": start, "crop_size": 64})[0]
    assert given["crop_size"] == 64 and "sizes" not in given
    given = completed({"start_from": start, "sizes": (64, 64, 128)})[0]
    assert given["sizes"] == (64, 64, 128) and "crop_size" not in given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("small=128,medium=192", "nothing for large boxes"),
        ("small=128", "nothing for medium and large boxes"),
        ("128,192,256", "'128' is not understood"),
        ("small=128,medium=192,huge=256", "'huge=256' is not understood"),
        ("small=128,medium=192,large=-256", "'large=-256' is not understood"),
        ("small=128,small=160,medium=192,large=256", "'small=160' is not understood"),
    ],
)
def test_sizes_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"--sizes {text}: {message}")):
        sides(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "small=100,medium=128,large=192"], "100 is not a multiple of 32, which mal-lite0 needs"),
        (["--sizes", "small=128,medium=64,large=192"], "larger boxes need crops that are as large at least"),
        (["--sizes", "small=64,medium=96,large=128", "--crop-size", "192"], "crop size 192: the sizes end with 128"),
        (["--arch", "vit-mae-base/16", "--sizes", "small=64,medium=96,large=128"], "has a table of positions"),
    ],
)
def test_command_line_errors_are_one_line(plan: TrainConfig, options: list[str], message: str) -> None:
    given = ["--images", str(plan.images[0]), "--boxes", str(plan.boxes[0]), "--out", str(plan.out), "--min-area", "99"]
    result = CliRunner().invoke(
        app, ["train", *given, "--arch", "mal-lite0", "--batch", "4", "--device", "cpu", *options]
    )
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]
    assert not plan.out.exists()


def test_python_sizes() -> None:
    assert sides("large=192, small=64, medium=96") == (64, 96, 192) and sides(None) is None
