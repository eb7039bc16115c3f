"""What a benchmark runs on where nothing is given, and a share of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mal_trt.formats.images import open_images
from mal_trt.measure.benchmark_data import COPIES, choose_samples, plan_samples


def test_example_photos_and_counts(tmp_path: Path) -> None:
    samples = choose_samples(None, None, None, None, tmp_path)
    plan = plan_samples(samples, open_images(samples.images), tmp_path)
    assert (plan.boxes, plan.pictures) == (21 * COPIES, 7 * COPIES)
    assert sum(plan.shares.values()) == pytest.approx(1)
    (tmp_path / "some").mkdir()
    some = choose_samples(samples.images, samples.boxes, None, 10, tmp_path / "some")
    document = json.loads(some.boxes.path.read_text())
    assert len(document["annotations"]) == 10
    assert {record["image_id"] for record in document["annotations"]} == {image["id"] for image in document["images"]}
