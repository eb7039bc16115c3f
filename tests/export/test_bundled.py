"""The chain that makes the bundled model: priors from an earlier one, runs that differ, a student of their masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from mal_trt import Labeler
from mal_trt.export.bundled import MIN_AREA, RUNS, run_config, sized, sources, student_config, targets_path, thinned
from mal_trt.training.ensemble import compute_targets, load_targets
from mal_trt.training.figures import draw_figure
from mal_trt.training.mask_priors import save_mask_priors
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.prior import load_priors


def test_what_tells_the_runs_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train_boxes.json").touch()
    images, boxes = sources(tmp_path)
    assert images == (tmp_path / "one" / "images-00.tar", tmp_path / "two" / "images-00.tar")
    runs = [run_config(images, boxes, tmp_path / "out", number) for number in range(len(RUNS))]
    student = student_config(images, boxes, tmp_path / "out")
    assert len({config.seed for config in (*runs, student)}) == len(RUNS) + 1
    assert len({config.out for config in (*runs, student)}) == len(RUNS) + 1
    for config in runs:
        assert config.priors == tmp_path / "out" / "priors.npz" and config.targets is None
        assert str(config.start_from) == config.arch.replace("mal-", "efficientnet-")
    assert student.targets == targets_path(tmp_path / "out") and student.priors is None
    assert student.start_from == runs[2].out / "last.pth" and student.paste > 0
    edge = student_config(images, boxes, tmp_path / "out", "mal-edge")
    assert (edge.arch, edge.targets, edge.start_from) == ("mal-edge", student.targets, Path("bundled"))
    second = student_config(images, boxes, tmp_path / "out", round=2)
    assert second.start_from == student.out / "last.pth" and second.targets != student.targets
    assert len({config.out for config in (student, edge, second)}) == 3


def test_a_run_is_as_long_as_it_is_told(tmp_path: Path) -> None:
    images, boxes = drawn_set(tmp_path)
    rows = read_training_boxes((images,), (boxes,), MIN_AREA, 1e10)
    config = sized(replace(student_config((images,), (boxes,), tmp_path), batch=4), rows, 64, warmup_steps=3)
    epoch = len(rows) // 4 * 4
    assert round(config.epochs * epoch) == 64 and round(config.warmup_epochs * epoch) == 12


@pytest.mark.slow
def test_targets_cover_the_boxes_on_which_networks_agree(tmp_path: Path) -> None:
    """The bundled model with itself: it agrees, and its soft masks are those of bright figures, not of their boxes."""
    images, boxes = drawn_set(tmp_path)
    rows = read_training_boxes((images,), (boxes,), MIN_AREA, 1e10)
    figures = compute_targets([Path("bundled")], rows, tmp_path / "targets.npz", "cpu", 0)
    found = load_targets(tmp_path / "targets.npz")
    assert figures["boxes"] == len(rows) and figures["trusted"] == len(found) > 0
    for row, prior in found.items():
        assert prior.mask.shape == (64, 64) and 0.85 <= prior.trust <= 1 and 0 <= row < len(rows)
        assert 0.05 <= (prior.mask > 127).mean() <= 0.98
    told = compute_targets([Path("bundled")], rows, tmp_path / "higher.npz", "cpu", 0, threshold=0.7)
    higher = load_targets(tmp_path / "higher.npz")
    assert told["threshold"] == 0.7 > figures["threshold"]
    assert all((higher[row].mask <= found[row].mask).all() for row in higher if row in found), "moved further down"


def test_crowds_are_thinned(tmp_path: Path) -> None:
    (tmp_path / "crowd").mkdir()
    records = [{"id": i, "image_id": i % 2, "bbox": [0, 0, 20 + i, 20]} for i in range(18)]
    records += [{"id": 99, "image_id": 7, "bbox": [0, 0, 16, 16]}]
    path = tmp_path / "crowd" / "train_boxes.json"
    path.write_text(json.dumps({"images": [1], "annotations": records}))
    (copy,) = thinned((path,), tmp_path / "out")
    kept = json.loads(copy.read_text())
    assert sorted(r["image_id"] for r in kept["annotations"]) == [0] * 4 + [1] * 4 and kept["images"] == [1]
    before = copy.stat().st_mtime_ns
    assert thinned((path,), tmp_path / "out") == (copy,) and copy.stat().st_mtime_ns == before


def test_masks_of_an_earlier_model_as_priors(tmp_path: Path) -> None:
    images, boxes = drawn_set(tmp_path)
    rows = read_training_boxes((images,), (boxes,), MIN_AREA, 1e10)
    save_mask_priors("bundled", rows, tmp_path / "priors.npz")
    labels = Labeler("bundled", "cpu")
    with np.load(tmp_path / "priors.npz") as stored:
        assert sorted(stored["rows"]) == list(range(8)) and stored["masks"].shape == (8, 96, 96)
        for row, prior in zip(stored["rows"], stored["masks"], strict=True):
            x0, y0, x1, y1 = rows.boxes[row].astype(int)
            mask = labels(rows.pictures[rows.picture[row]].read(), rows.boxes[[row]])[0][y0:y1, x0:x1]
            assert (prior > 127).mean() == pytest.approx(mask.mean(), abs=0.02)
            ys, xs = ((np.arange(96) + 0.5) * side // 96 for side in mask.shape)
            assert ((prior > 127) == mask[np.ix_(ys.astype(int), xs.astype(int))]).mean() > 0.95
    labels.close()
    assert all(prior.trust == 1 for prior in load_priors(tmp_path / "priors.npz").values())


def drawn_set(folder: Path) -> tuple[Path, Path]:
    """Eight drawn pictures of 160 px with a box each."""
    rng = np.random.default_rng(3)
    images, annotations = [], []
    (folder / "pictures").mkdir()
    for i in range(8):
        picture, mask = draw_figure(lambda r, side: r.integers(0, 255, (side, side, 3)).astype(np.uint8), rng, 160)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.png")
        ys, xs = np.nonzero(mask)
        box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
        images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 160})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "figure"}]}
    (folder / "train_boxes.json").write_text(json.dumps(document))
    return folder / "pictures", folder / "train_boxes.json"
