"""Training samples: golden crops, the filter, deterministic order, drawn figures, priors."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from mal_trt.base.errors import InputError, NothingDone, RunError
from mal_trt.geometry.boxes import extended_box, inclusive_pixels
from mal_trt.geometry.crops import read_crop
from mal_trt.training import augment
from mal_trt.training.augment import (
    gated_margins,
    random_margins,
    student_colours,
    wrapped_box_mask,
    wrapped_mask,
)
from mal_trt.training.config import recipe_config
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.figures import draw_figure
from mal_trt.training.loop import train
from mal_trt.training.pictures import Order, TrainingBoxes, epoch_order, read_training_boxes
from mal_trt.training.prior import load_priors, save_priors

GOLDEN = Path(__file__).parents[1] / "golden"
PREP = json.loads((GOLDEN / "prep.json").read_text())
BOXES = {a["id"]: a["bbox_xyxy"] for a in PREP["annotations"]}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(GOLDEN / "photo.png").convert("RGB"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "photo.png").write_bytes((GOLDEN / "photo.png").read_bytes())
    document = json.loads((GOLDEN / "toy_coco.json").read_text())
    document["images"][0]["file_name"] = "photo.png"
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize("expected", PREP["train"], ids=lambda e: str(e["id"]))
def test_training_crop(photo: np.ndarray, expected: dict) -> None:
    box = BOXES[expected["id"]]
    margins = gated_margins(1.2 * np.array(expected["u"]), tuple(expected["gates"]))
    assert margins == pytest.approx(expected["margins"], abs=1e-6)
    extended = extended_box(box, expected["margins"])
    assert list(extended) == expected["ext_box"]
    crop = read_crop(photo, extended, 512)
    assert hashlib.sha256(crop.tobytes()).hexdigest() == expected["crop_sha256"]
    mask = wrapped_box_mask(inclusive_pixels(box), extended, photo.shape[:2], 512)
    assert hashlib.sha256(mask.tobytes()).hexdigest() == expected["mask_sha256"]


def test_published_filter(folder: Path) -> None:
    read = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    assert [i for _, i in read.ids] == PREP["kept_ids_train_min_obj_size_2048"]
    assert len(read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 0, 1e9)) == 20


def test_tar_and_folder_give_the_same_pictures(folder: Path, photo: np.ndarray) -> None:
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        tar.add(folder / "pictures" / "photo.png", "images/photo.png")
    for source in ("pictures", "pictures.tar"):
        read = read_training_boxes([folder / source], [folder / "boxes.json"], 2048, 1e10)
        np.testing.assert_array_equal(read.pictures[0].read(), photo)


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"images": [], "annotations": 3}'])
def test_bad_documents(folder: Path, text: str) -> None:
    (folder / "bad.json").write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        read_training_boxes([folder / "pictures"], [folder / "bad.json"], 0, 1e10)


def test_records_that_refer_to_nothing_cost_no_others(folder: Path) -> None:
    """As where labels are made: such a record is left out with a reason, the rest is used."""
    document = json.loads((folder / "boxes.json").read_text())
    count = len(read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10))
    first, *rest = document["annotations"]
    odd: list[dict] = [{**first, "image_id": value} for value in (None, 999, [1], {"a": 1}, True)]
    odd += [{key: value for key, value in first.items() if key != "image_id"}, {**first, "bbox": "wide"}]
    document["annotations"] = [*odd, {**first, "image_id": str(first["image_id"])}, *rest]
    document["images"] += [
        {"file_name": "photo.png"},
        {"id": [2], "file_name": "photo.png"},
        dict(document["images"][0]),
    ]
    document["categories"] = [*document.get("categories", []), None, {"name": "no id"}, 7]
    (folder / "boxes.json").write_text(json.dumps(document))
    read = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    assert len(read) == count and len(read.pictures) == 1
    assert read.skipped["unknown image_id"] == 6 and read.skipped["bbox is not four numbers"] == 1


def test_pictures_elsewhere(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(NothingDone, match=r"25 picture missing\); looked for 'photo.png', .*empty holds no picture"):
        read_training_boxes([folder / "empty"], [folder / "boxes.json"], 0, 1e10)


def test_damaged_pictures_give_way(folder: Path) -> None:
    data = (GOLDEN / "photo.png").read_bytes()
    (folder / "pictures" / "cut.png").write_bytes(data[: len(data) // 2])
    document = json.loads((folder / "boxes.json").read_text())
    for name, i in (("cut.png", 90), ("gone.png", 91), ("photo.png", 92)):
        size = {"width": 320, "height": 213 if i != 92 else 100}
        document["images"].append({"id": i, "file_name": name, **size})
        document["annotations"].append({"id": i, "image_id": i, "category_id": 3, "bbox": [10, 10, 60, 60]})
    (folder / "boxes.json").write_text(json.dumps(document))
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    assert boxes.skipped["picture missing"] == boxes.skipped["picture size differs from the document"] == 1
    cut = [i for _, i in boxes.ids].index(90)
    for preload in (False, True):
        samples = Samples(boxes, SampleRules(64, seed=0), 0, 32, preload=preload)
        drawn = [samples[i] for i in range(32)]
        assert cut not in [s["row"] for s in drawn]
        assert {s["damaged"] for s in drawn} == {-1, cut}


def test_only_damaged_pictures(folder: Path) -> None:
    path = folder / "pictures" / "photo.png"
    path.write_bytes(path.read_bytes()[:30_000])
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    with pytest.raises(RunError, match=r"such as photo\.png"):
        Samples(boxes, SampleRules(64, seed=0), 0, 4)[0]


def rows_of(pictures: np.ndarray, category: np.ndarray | None = None) -> TrainingBoxes:
    """Boxes of which only the picture and the class matter."""
    zeros = np.zeros(len(pictures), np.int64)
    category = zeros if category is None else category
    return TrainingBoxes(np.zeros((len(pictures), 4), np.float32), pictures, [], [], category, Counter())


def test_epoch_order_caps_each_picture() -> None:
    boxes = rows_of(np.repeat([0, 1, 2], [50, 3, 10]))
    order = epoch_order(boxes, Order(cap=5), seed=1, epoch=0)
    assert np.bincount(boxes.picture[order]).tolist() == [5, 3, 5]
    assert set(order) != set(epoch_order(boxes, Order(cap=5), seed=1, epoch=1))
    assert sorted(epoch_order(boxes, Order(), 1, 0)) == list(range(63))


def test_boxes_of_a_picture_come_together() -> None:
    boxes = rows_of(np.repeat(np.arange(40), 7))
    order = epoch_order(boxes, Order(together=3), seed=0, epoch=0)
    assert sorted(order) == list(range(280))
    pictures = boxes.picture[order]
    runs = np.diff(np.flatnonzero(np.diff(pictures, prepend=-1, append=-1)))
    assert len(runs) <= 40 * 3 and 2 < runs.mean() < 4  # 7 = 3 + 3 + 1, a few runs touch
    assert len(set(pictures[:30])) > 7, "pictures are still mixed"


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_balanced_sampling(balance: float, share: float) -> None:
    category = np.repeat([0, 1], [900, 100])
    order = epoch_order(rows_of(np.arange(1000), category), Order(balance=balance), seed=0, epoch=0)
    assert len(order) == 1000
    assert (category[order] == 0).mean() == pytest.approx(share, abs=0.002)
    counts = np.bincount(order[category[order] == 1], minlength=1000)[900:]
    assert counts.max() - counts.min() <= 1, "the rare class's boxes take turns"


def test_a_picture_is_decoded_once_for_its_boxes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    read, reads = type(boxes.pictures[0]).read, []
    monkeypatch.setattr(type(boxes.pictures[0]), "read", lambda self: reads.append(1) or read(self))
    samples = Samples(boxes, SampleRules(64, seed=0, order=Order(together=4)), 0, 8)
    for i in range(8):
        samples[i]
    assert len(reads) == 1


def test_samples_depend_on_their_number_only(folder: Path) -> None:
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    rules = SampleRules(64, seed=3, figures=0.5)
    whole, tail = Samples(boxes, rules, 0, 40), Samples(boxes, rules, 25, 40, preload=True)
    for i in range(15):
        one, other = whole[25 + i], tail[i]
        assert one["row"] == other["row"]
        for key in ("student", "teacher", "mask"):
            np.testing.assert_array_equal(one[key], other[key])
    kinds = [bool(whole[i]["exact"]) for i in range(40)]
    assert any(kinds) and not all(kinds)


def test_a_sample_shows_its_box(folder: Path) -> None:
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    samples = Samples(boxes, SampleRules(64, seed=0, margin_rate=(0.6, 0.6)), 0, 30)
    for i in range(30):
        mask = samples[i]["mask"].numpy()
        assert set(np.unique(mask)) <= {0, 1} and 0.15 < mask.mean() <= 1


def test_figures_are_exact_and_varied() -> None:
    rng = np.random.default_rng(0)
    ground = lambda r, side: r.integers(0, 255, (side, side, 3)).astype(np.uint8)  # noqa: E731
    drawn = [draw_figure(ground, rng) for _ in range(40)]
    shares = [mask.mean() for _, mask in drawn]
    assert min(shares) > 0.005 and max(shares) < 0.8 and np.std(shares) > 0.03
    assert all(set(np.unique(m)) == {0, 1} and p.dtype == np.uint8 and p.shape == (*m.shape, 3) for p, m in drawn)


def test_figures_over_thin_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (400, 3)).save(tmp_path / "thin.png")
    record = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 0, 300, 3]}
    picture = {"id": 1, "file_name": "thin.png", "width": 400, "height": 3}
    (tmp_path / "b.json").write_text(json.dumps({"images": [picture], "annotations": [record], "categories": []}))
    boxes = read_training_boxes([tmp_path], [tmp_path / "b.json"], 256, 1e10)
    samples = Samples(boxes, SampleRules(32, seed=0, figures=1.0), 0, 20)
    assert all(bool(samples[number]["exact"]) for number in range(20))


def test_student_colours_change_colours_not_shape() -> None:
    crop = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    changed = [student_colours(crop, rng) for _ in range(20)]
    assert all(c.shape == crop.shape and c.dtype == np.uint8 for c in changed)
    assert sum(not np.array_equal(c, crop) for c in changed) > 10


@pytest.mark.parametrize(
    ("name", "value"), [("brightness", 1.3), ("contrast", 0.7), ("contrast", 1.4), ("saturation", 1.2), ("hue", 0.07)]
)
def test_colours_are_torchvisions(photo: np.ndarray, name: str, value: float) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    expected = np.asarray(getattr(functional, f"adjust_{name}")(Image.fromarray(photo), value)).astype(int)
    found = getattr(augment, name)(photo, value).astype(int)
    assert np.abs(found - expected).mean() < 1.5 and np.abs(found - photo).mean() > 3


def test_blur_and_grey_are_pillows(photo: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(1.5))).astype(int)
    assert np.abs(augment.blur(photo, 1.5) - expected).mean() < 0.7
    grey = np.asarray(Image.fromarray(photo).convert("L")).astype(int)
    assert np.abs(augment.saturation(photo, 0.0) - grey[..., None]).max() <= 1


def test_yolo_boxes_train(folder: Path) -> None:
    labels = folder / "labels"
    labels.mkdir()
    (labels / "photo.txt").write_text("3 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.5\n")
    boxes = read_training_boxes([folder / "pictures"], [labels], 100, 1e10)
    np.testing.assert_allclose(boxes.boxes, [[80, 53.25, 240, 159.75], [120, 53.25, 200, 159.75]])
    assert boxes.category.tolist() == [0, 1]


def test_margins_share_a_budget_between_opposite_sides() -> None:
    rng = np.random.default_rng(0)
    margins = np.array([random_margins(rng) for _ in range(500)])
    assert margins.min() >= 0 and (margins[:, 0] + margins[:, 2]).max() <= 1.2


def test_stored_priors_are_filtered(folder: Path) -> None:
    boxes = read_training_boxes([folder / "pictures"], [folder / "boxes.json"], 2048, 1e10)
    y, x = np.mgrid[:48, :48] / 24 - 1
    shapes = {
        "disc": x**2 + y**2 < 1,
        "reaches no side": x**2 + y**2 < 0.5,
        "fills its box": np.ones((48, 48), bool),
        "thin": abs(x - y) < 0.1,
    }
    kinds = [list(shapes)[row % len(shapes)] for row in range(len(boxes))]
    save_priors(folder / "priors.npz", {row: shapes[kind].astype(np.uint8) * 255 for row, kind in enumerate(kinds)})
    priors = load_priors(folder / "priors.npz")
    assert set(priors) == {row for row, kind in enumerate(kinds) if kind == "disc"} and priors
    assert all(prior.trust == 1 for prior in priors.values())
    samples = Samples(boxes, SampleRules(64, seed=0), 0, 20, priors)
    for i in range(20):
        sample = samples[i]
        assert bool(sample["has_prior"]) == (sample["row"] in priors)
        assert bool(sample["prior"].any()) == bool(sample["has_prior"])


@pytest.mark.parametrize("option", ["priors", "targets"])
def test_files_of_masks_that_cannot_be_used(folder: Path, option: str) -> None:
    given = {
        "images": (folder / "pictures",),
        "boxes": (folder / "boxes.json",),
        "out": folder / "run",
        option: folder / "m.npz",
    }
    config = recipe_config("small", **given)
    save_priors(folder / "whole.npz", {0: np.eye(4, dtype=np.uint8)})
    whole = (folder / "whole.npz").read_bytes()
    for content in (None, b"", b"text", whole[: len(whole) // 2]):
        if content is not None:
            (folder / "m.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"m\.npz: not a file of (priors|targets of an ensemble) \("):
            train(config)
    disc = np.zeros((48, 48), np.uint8)
    cv2.ellipse(disc, (24, 24), (24, 24), 0, 0, 360, 255, -1)
    np.savez(folder / "m.npz", rows=[10**6], masks=disc[None], trust=[1.0])
    with pytest.raises(InputError, match=r"m\.npz: holds a mask of box 1000000, and there are \d+ boxes"):
        train(config)
    assert not (folder / "run").exists()


def test_wrapped_mask_follows_the_picture() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:50] = 1
    expected = wrapped_box_mask((20, 10, 50, 30), (-15, -9, 70, 50), mask.shape, 48)
    np.testing.assert_array_equal(wrapped_mask(mask, (-15, -9, 70, 50), 48), expected)
