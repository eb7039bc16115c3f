"""Copy and paste: where cut-outs come from, what they hide, and that masks say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mal_trt.base.errors import InputError
from mal_trt.training.config import recipe_config
from mal_trt.training.cutouts import SIDE, Cutouts, cut_objects, read_cutouts
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.loop import train
from mal_trt.training.paste import pasted, scene
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.prior import Prior

RED, GREY = (220, 0, 0), 90


def round_cutout(colour: tuple[int, int, int] = RED, side: int = 60) -> np.ndarray:
    image = Image.new("RGBA", (side, side))
    ImageDraw.Draw(image).ellipse((0, 0, side - 1, side - 1), fill=(*colour, 255))
    return np.asarray(image)


@pytest.fixture
def reds() -> Cutouts:
    return Cutouts(((round_cutout(),),))


@pytest.fixture
def crop() -> tuple[np.ndarray, np.ndarray]:
    """A disc on black, in as many colours as it has pixels, and its mask."""
    soft = Image.new("L", (96, 96))
    ImageDraw.Draw(soft).ellipse((16, 16, 80, 80), fill=255)
    mask = np.asarray(soft)
    y, x = np.mgrid[:96, :96]
    return np.dstack([60 + x, 60 + y, 250 - x]).astype(np.uint8) * (mask // 255)[..., None], mask


def extent(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def test_what_is_pasted_in_front_leaves_the_mask(crop: tuple[np.ndarray, np.ndarray], reds: Cutouts) -> None:
    picture, soft = crop
    in_front = behind = 0
    for seed in range(60):
        seen, left = pasted(picture, soft, reds, np.random.default_rng(seed))
        changed = (seen != picture).any(2)
        if (left != soft).any():
            in_front += 1
            assert changed[(soft > 127) & (left < 100)].mean() > 0.95, "what left the mask is hidden in the picture"
            moved = np.abs(seen.astype(int) - picture).max(2)
            assert moved[left > 250].max() <= 6, "what stayed is seen as it was"
            assert np.abs(extent(left > 127) - extent(soft > 127)).max() <= 4, "the box stays true"
            assert 0.45 < (left > 127).sum() / (soft > 127).sum() < 0.99
        elif changed.any():
            behind += 1
            assert not changed[soft == 255].any() and changed[soft == 0].any()
    assert in_front > 10 and behind > 5


def test_nothing_is_pasted_over_an_object_that_is_not_there(reds: Cutouts) -> None:
    picture, soft = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    seen, left = pasted(picture, soft, reds, np.random.default_rng(0))
    assert seen is picture and left is soft


def test_a_scene_knows_its_object(reds: Cutouts) -> None:
    ground = np.zeros((192, 192, 3), np.uint8)
    for seed in range(20):
        picture, mask = scene(lambda rng, side: ground[:side, :side], reds, np.random.default_rng(seed))
        assert picture.shape == (192, 192, 3) and picture.dtype == np.uint8 and 0.01 <= mask.mean() < 0.8
        sure = np.asarray(Image.fromarray(mask * 255).resize((24, 24), Image.Resampling.BOX)) == 255
        small = np.asarray(Image.fromarray(picture).resize((24, 24), Image.Resampling.BOX)).max(2)
        assert not sure.any() or small[sure].min() > 60, "all of the object is cut-out, none of it ground"


def test_scenes_are_drawn_from_all_kinds_alike() -> None:
    many = tuple(round_cutout((0, 0, 200)) for _ in range(50))
    cutouts, rng = Cutouts((many, (round_cutout(),))), np.random.default_rng(1)
    share = np.mean([cutouts.draw(rng)[30, 30, 0] == RED[0] for _ in range(400)])
    assert 0.4 < share < 0.6 and len(cutouts) == 51


def test_a_folder_of_cutouts(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    Image.fromarray(np.pad(round_cutout(side=300), ((40, 7), (0, 90), (0, 0)))).save(tmp_path / "below" / "disc.png")
    palette = Image.new("P", (40, 40), 0)
    palette.paste(1, (5, 5, 30, 38))
    palette.paste(0, (5, 5, 15, 15))
    palette.putpalette([0, 0, 0, 9, 200, 9])
    palette.save(tmp_path / "a.gif", transparency=0)
    Image.new("RGB", (50, 50), RED).save(tmp_path / "opaque.jpg")
    Image.new("RGBA", (50, 50)).save(tmp_path / "empty.png")
    Image.fromarray(round_cutout(side=10)).save(tmp_path / "tiny.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    palette_cutout, disc = read_cutouts(tmp_path)
    assert palette_cutout.shape == (33, 25, 4) and tuple(palette_cutout[-1, -1]) == (9, 200, 9, 255)
    assert disc.shape == (SIDE, SIDE, 4) and tuple(disc[SIDE // 2, SIDE // 2]) == (*RED, 255) and disc[0, 0, 3] == 0


def test_a_folder_without_cutouts_says_so(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), RED).save(tmp_path / "opaque.png")
    with pytest.raises(InputError, match="none of its 1 pictures shows an object on a transparent ground"):
        read_cutouts(tmp_path)
    with pytest.raises(InputError, match="not a folder; --cutouts takes one"):
        read_cutouts(tmp_path / "opaque.png")
    Image.fromarray(round_cutout()).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read .* repair it or take it out of the folder"):
        read_cutouts(tmp_path)


@pytest.fixture
def discs(tmp_path: Path) -> tuple[Path, TrainingBoxes]:
    """Four pictures of a grey disc; the last file is damaged."""
    images, annotations = [], []
    for i in range(4):
        picture = Image.new("RGB", (120, 100), (10 * i, 0, 0))
        ImageDraw.Draw(picture).ellipse((20, 15, 89, 84), fill=(GREY, GREY, GREY))
        picture.save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 100})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [20, 15, 70, 70]})
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:90])
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return tmp_path, read_training_boxes((tmp_path,), (tmp_path / "boxes.json",), 100, 1e10)


def disc_mask(trust: float, pieces: int = 1) -> Prior:
    image = Image.new("L", (64, 64))
    for piece in range(pieces):
        ImageDraw.Draw(image).ellipse((64 * piece // pieces, 0, 64 * (piece + 1) // pieces - 3, 63), fill=255)
    return Prior(np.asarray(image), trust)


def test_objects_are_cut_along_the_masks_that_are_trusted(discs: tuple[Path, TrainingBoxes]) -> None:
    _, boxes = discs
    masks = {0: disc_mask(0.99), 1: disc_mask(0.9), 2: disc_mask(0.99, pieces=2), 3: disc_mask(0.99)}
    (cutout,) = cut_objects(boxes, masks)
    solid = cutout[..., 3] > 200
    assert (cutout[solid][:, :3] == GREY).mean() > 0.98, "hardly any ground comes along"
    assert solid.sum() > 0.6 * 70 * 70 and cutout[0, 0, 3] == 0


def test_samples_show_what_was_pasted(discs: tuple[Path, TrainingBoxes], reds: Cutouts) -> None:
    _, boxes = discs
    masks = {row: disc_mask(1.0) for row in range(4)}
    rules = SampleRules(96, 1, figures=0.3, paste=1.0)
    with_, without = (Samples(boxes, rules, 0, 30, masks, cutouts=cutouts) for cutouts in (reds, None))
    samples = [(with_[i], without[i]) for i in range(30)]
    real = [(a, b) for a, b in samples if not a["exact"]]
    changed = [bool((a["teacher"] != b["teacher"]).any()) for a, b in real]
    assert 10 < len(real) < 30 and sum(changed) > len(real) / 2
    boxes_of = [(a["mask"], b["mask"]) for a, b in real]
    assert all((a == b).all() or (a == b.flip(1)).all() for a, b in boxes_of), "the box is the same, or its mirror"
    scenes = [a for a, _ in samples if a["exact"]]
    assert all((a["mask"].sum() > 20) for a in scenes)
    assert (with_[3]["student"] == samples[3][0]["student"]).all(), "the same in every run"


def test_a_run_that_pastes(discs: tuple[Path, TrainingBoxes], tmp_path: Path) -> None:
    """It learns something else, and the same each time."""
    folder, _ = discs
    cut = tmp_path / "cut"
    cut.mkdir()
    Image.fromarray(round_cutout()).save(cut / "red.png")
    masks = np.stack([disc_mask(1.0).mask] * 4)
    np.savez(tmp_path / "soft.npz", rows=np.arange(4), masks=masks, trust=np.ones(4, np.float32))
    config = recipe_config(
        "distill",
        **{"images": (folder,), "boxes": (folder / "boxes.json",), "targets": tmp_path / "soft.npz", "cutouts": cut},
        **{"arch": "vit-mal-tiny/16", "layout": "hybrid", "depth": 1, "head_width": 16, "adjust_scale": False},
        **{"crop_size": 64, "batch": 2, "epochs": 2.0, "paste": 1.0, "figures": 0.5, "device": "cpu", "workers": 0},
        **{"out": tmp_path / "whole", "min_area": 100.0, "picture_steps": 0, "checkpoint_steps": 2, "lr": 1e-3},
    )
    whole = torch.load(train(config, show=False), weights_only=False)["student"]
    plain = torch.load(train(replace(config, paste=0.0, out=tmp_path / "plain"), show=False), weights_only=False)
    assert any((whole[name] != plain["student"][name]).any() for name in whole), "pasting changes what is learnt"
    again = torch.load(train(replace(config, out=tmp_path / "again"), show=False), weights_only=False)["student"]
    assert all((whole[name] == again[name]).all() for name in whole)


def test_nothing_to_paste_into(discs: tuple[Path, TrainingBoxes], tmp_path: Path) -> None:
    folder, _ = discs
    given = {"images": (folder,), "boxes": (folder / "boxes.json",), "out": tmp_path / "run", "device": "cpu"}
    with pytest.raises(InputError, match="paste needs soft masks to paste into"):
        train(recipe_config("small", paste=0.5, **given))
    with pytest.raises(InputError, match="cutouts are pasted by nothing: give paste or figures"):
        train(recipe_config("small", figures=0.0, cutouts=folder, **given))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of its 0 pictures shows an object"):
        train(recipe_config("distill", cutouts=tmp_path / "empty", arch="mal-edge", batch=1, min_area=1.0, **given))
    assert not (tmp_path / "run").exists(), "the folder is looked at before the teacher draws anything"
    assert not len(Cutouts.of((), ()))
