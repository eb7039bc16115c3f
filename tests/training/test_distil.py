"""A small network learns a finished model's masks: the loss, the teacher, the file of its masks, the run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from killed_run import Killed, ended_at, same_weights
from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.training import teaching
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.config import RECIPES, TrainConfig, recipe_config
from mal_trt.training.distil_loss import DistilLoss, pulled
from mal_trt.training.dry_run import forecast
from mal_trt.training.loop import train
from mal_trt.training.mask_cache import MaskCache
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.over_box import SIDE
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.prior import Prior
from mal_trt.training.teacher import Teacher, box_keys
from mal_trt.training.trainer import Trainer
from tiny_model import write_tiny_model

COUNT = 12


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with one white disc on black each, the last without: pictures/ and boxes.json."""
    folder = tmp_path_factory.mktemp("discs")
    (folder / "pictures").mkdir()
    images, annotations = [], []
    for i in range(COUNT):
        picture, x, y = Image.new("RGB", (120, 100)), 20 + i, 15 + i % 5
        box = (x, y, x + 59, y + 49)
        if i < COUNT - 1:
            ImageDraw.Draw(picture).ellipse(box, fill=(255, 255, 255))
        picture.save(folder / "pictures" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 100})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [x, y, 60, 50]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "boxes.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def boxes(discs: Path) -> TrainingBoxes:
    return read_training_boxes((discs / "pictures",), (discs / "boxes.json",), 100, 1e10)


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose object is what is bright."""
    return write_tiny_model(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture
def lesson(discs: Path, bright: Path, tmp_path: Path) -> TrainConfig:
    """A run of six steps of two boxes on a very small student."""
    return recipe_config(
        "distill",
        **{"images": (discs / "pictures",), "boxes": (discs / "boxes.json",), "out": tmp_path / "run"},
        **{"teacher": bright, "arch": "vit-mal-tiny/16", "layout": "hybrid", "depth": 1, "head_width": 16},
        **{"crop_size": 64, "adjust_scale": False, "batch": 2, "epochs": 1.0, "min_area": 100, "picture_steps": 2},
        **{"device": "cpu", "workers": 0},
    )


def disc(side: int, radius: float) -> torch.Tensor:
    at = torch.arange(side) + 0.5 - side / 2
    return ((at[:, None] ** 2 + at[None] ** 2) < radius**2).float()[None, None]


def test_the_nearer_to_the_soft_mask_the_cheaper() -> None:
    target = disc(32, 10) * 0.8
    costs = [pulled(torch.logit(p.clamp(0.01, 0.99)), target).item() for p in (target, disc(32, 8), 1 - target)]
    assert costs[0] < costs[1] < costs[2]


def test_errors_at_the_edge_cost_more() -> None:
    target, wrong_inside, wrong_at_edge = disc(32, 10), disc(32, 10), disc(32, 10)
    wrong_inside[0, 0, 15:17, 14:18] = 0
    wrong_at_edge[0, 0, 6:8, 14:18] = 0
    assert (target - wrong_inside).sum() == (target - wrong_at_edge).sum() == 8
    inside, at_edge = (pulled(torch.logit(p.clamp(0.01, 0.99)), target).item() for p in (wrong_inside, wrong_at_edge))
    assert at_edge > inside


def loss_of(logits: torch.Tensor, trust: float, has_soft: bool = True, exact: bool = False) -> Any:
    box = torch.zeros(1, 1, 64, 64)
    box[..., 10:54, 10:54] = 1
    flags = torch.tensor([has_soft]), torch.tensor([trust]), torch.tensor([exact])
    return DistilLoss()(logits, box, disc(64, 22), *flags)


def test_trust_weighs_the_mask_and_not_the_box() -> None:
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    whole, half, none = loss_of(logits, 1.0), loss_of(logits, 0.5), loss_of(logits, 1.0, has_soft=False)
    assert half.crf.item() == pytest.approx(whole.crf.item() / 2) and half.mil.item() == whole.mil.item() > 0
    assert none.crf.item() == 0 and none.mil.item() == whole.mil.item(), "without a mask the box term is left"
    whole.total.backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_a_drawn_figure_is_its_own_mask() -> None:
    figure = loss_of(torch.zeros(1, 1, 16, 16), 0.1, exact=True)
    assert figure.mil.item() == 0 and figure.crf.item() > 0


def masks_of(teacher: Teacher, boxes: TrainingBoxes) -> dict[int, Prior | None]:
    return {
        row: mask
        for rows, masks in teacher.draw(boxes, range(len(boxes)))
        for row, mask in zip(rows, masks, strict=True)
    }


def test_soft_masks_lie_over_their_boxes(boxes: TrainingBoxes, bright: Path) -> None:
    with closing(Teacher(bright, "cpu")) as teacher:
        found = masks_of(teacher, boxes)
    assert sorted(found) == list(range(COUNT))
    whole = disc(SIDE, SIDE / 2)[0, 0].numpy() > 0
    for row in range(COUNT - 1):
        mask = found[row]
        assert mask is not None and mask.mask.shape == (SIDE, SIDE) and mask.trust > 0.9
        drawn = mask.mask > 127
        assert (drawn & whole).sum() / (drawn | whole).sum() > 0.93
    empty = found[COUNT - 1]
    assert empty is not None and empty.trust == 0, "nothing is bright there"


def test_a_damaged_picture_has_no_mask(discs: Path, bright: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in (discs / "pictures").iterdir():
        (pictures / file.name).write_bytes(file.read_bytes())
    whole = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(whole[: len(whole) // 2])
    boxes = read_training_boxes((pictures,), (discs / "boxes.json",), 100, 1e10)
    with closing(Teacher(bright, "cpu")) as teacher:
        found = masks_of(teacher, boxes)
    (row,) = [row for row, mask in found.items() if mask is None]
    assert boxes.pictures[boxes.picture[row]].name == "3.png"


def test_masks_come_back_as_they_were(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), np.uint8)
    with closing(MaskCache(tmp_path / "a.masks", {"teacher": "x"})) as cache:
        cache.add({b"1": Prior(mask, 0.5), b"2": None, b"3": Prior(mask, 0.0)})
    with closing(MaskCache(tmp_path / "a.masks", {"teacher": "x"})) as cache:
        assert cache.missing([b"0", b"1", b"2", b"3"]) == [0]
        found = cache.read([b"0", b"1", b"2", b"3"])
    assert list(found) == [1] and (found[1].mask == mask).all() and found[1].trust == 0.5
    with pytest.raises(InputError, match=r"another teacher \(teacher was x, now y\)"):
        MaskCache(tmp_path / "a.masks", {"teacher": "y"})


@pytest.mark.parametrize("left", [0.9, 0.5, 0.1])
def test_a_truncated_file_of_masks_is_named(tmp_path: Path, left: float) -> None:
    path, rng = tmp_path / "a.masks", np.random.default_rng(0)
    keys = [bytes([i]) for i in range(60)]
    with closing(MaskCache(path, {})) as cache:
        cache.add({key: Prior(rng.integers(0, 255, (SIDE, SIDE), np.uint8), 1.0) for key in keys})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * left)])
    with pytest.raises(InputError, match=r"a\.masks: .*delete it"), closing(MaskCache(path, {})) as cache:
        cache.read(keys)


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.masks"
    with closing(MaskCache(path, {})) as cache:
        cache.add({b"1": Prior(np.zeros((SIDE, SIDE), np.uint8), 1.0)})
        with pytest.raises(InputError, match="another run is writing it; wait"):
            MaskCache(path, {})
    with closing(sqlite3.connect(path)) as changed, changed:
        changed.execute("UPDATE mask SET mask=x'00'")
    with pytest.raises(InputError, match=r"a\.masks: is damaged .*delete it"), closing(MaskCache(path, {})) as cache:
        cache.read([b"1"])


def test_a_box_is_known_again_in_another_file(discs: Path, boxes: TrainingBoxes, tmp_path: Path) -> None:
    document = json.loads((discs / "boxes.json").read_text())
    document["annotations"] = [{**a, "id": a["id"] + 100} for a in document["annotations"][4:]]
    (tmp_path / "some.json").write_text(json.dumps(document))
    some = read_training_boxes((discs / "pictures",), (tmp_path / "some.json",), 100, 1e10)
    assert box_keys(some) == box_keys(boxes)[4:] and len(set(box_keys(boxes))) == COUNT


@pytest.fixture
def drawn_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows for which a teacher drew masks."""
    rows: list[int] = []
    draw = Teacher.draw

    def listed(self: Teacher, boxes: TrainingBoxes, wanted: Any) -> Any:
        for some, masks in draw(self, boxes, wanted):
            if len(rows) >= 5 and rows[-1] == -1:
                raise Killed
            rows.extend(some)
            yield some, masks

    monkeypatch.setattr(Teacher, "draw", listed)
    yield rows


def test_killed_while_the_teacher_draws(
    lesson: TrainConfig, drawn_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "KEPT_AT_ONCE", 1)
    whole = train(replace(lesson, out=lesson.out / "whole"), show=False)
    assert sorted(drawn_rows) == list(range(COUNT)) and (lesson.out / "whole" / "teacher.masks").is_file()
    drawn_rows[:] = [-1] * 5
    with pytest.raises(Killed):
        train(replace(lesson, out=lesson.out / "killed"), show=False)
    assert not (lesson.out / "killed" / "last.pth").exists()
    drawn_rows.clear()
    again = train(replace(lesson, out=lesson.out / "killed"), show=False)
    assert len(drawn_rows) <= COUNT
    same_weights(again, whole)
    drawn_rows.clear()
    train(replace(lesson, out=lesson.out / "third", teacher_cache=lesson.out / "whole" / "teacher.masks"), show=False)
    assert drawn_rows == [], "the masks were there"


def test_killed_while_it_trains(lesson: TrainConfig) -> None:
    whole = train(replace(lesson, out=lesson.out / "whole"), show=False)
    plan = replace(lesson, out=lesson.out / "killed", checkpoint_minutes=0.0)
    with ended_at(3):
        train(plan, show=False)
    same_weights(train(replace(plan, resume=True), show=False), whole)


def test_only_the_student_looks_at_the_crops(lesson: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is half as dear without the moving average's own forward pass."""
    begun = Trainer.__init__

    def made(self: Trainer, *given: Any, **more: Any) -> None:
        begun(self, *given, **more)
        self.teacher.forward = None  # type: ignore[assignment, method-assign]

    monkeypatch.setattr(Trainer, "__init__", made)
    assert train(lesson, show=False).is_file()


def test_it_learns_the_masks(lesson: TrainConfig) -> None:
    trained = train(replace(lesson, epochs=12.0, lr=1e-3, paste=0.0, figures=0.0), show=False)
    rows = [line.split(",") for line in (trained.parent / "log.csv").read_text().splitlines()]
    first, last = (float(row[rows[0].index("total")]) for row in (rows[1], rows[-1]))
    assert last < 0.7 * first


def test_a_dry_run_writes_nothing(lesson: TrainConfig) -> None:
    found = forecast(lesson, show=False)
    assert found.teacher_boxes == COUNT and found.teacher_seconds > 0 and found.boxes_per_second > 0
    assert lesson.out / "teacher.masks" in found.writes and not lesson.out.exists()


def test_an_ensemble_in_the_place_of_a_teacher(lesson: TrainConfig, tmp_path: Path) -> None:
    masks = np.random.default_rng(0).integers(0, 255, (COUNT, SIDE, SIDE), np.uint8)
    np.savez(tmp_path / "t.npz", rows=np.arange(COUNT), masks=masks, trust=np.ones(COUNT, np.float32))
    trained = train(replace(lesson, teacher=None, targets=tmp_path / "t.npz"), show=False)
    assert trained.is_file() and not (trained.parent / "teacher.masks").exists()
    given = recipe_config("distill", images=(), boxes=(), out=tmp_path, targets=tmp_path / "t.npz")
    assert given.teacher is None
    with pytest.raises(InputError, match="give one of them"):
        train(replace(lesson, teacher=None, out=tmp_path / "neither"), show=False)


def test_recipe(tmp_path: Path) -> None:
    own = recipe_config("distill", images=(), boxes=(), out=tmp_path)
    assert (own.arch, own.crop_size, own.teacher, own.start_from) == ("mal-edge", 160, Path("bundled"), Path("bundled"))
    nano = recipe_config("distill", images=(), boxes=(), out=tmp_path, arch="mal-nano")
    assert (nano.crop_size, nano.head_width) == (128, 32)
    small = recipe_config("small", images=(), boxes=(), out=tmp_path, arch="mal-edge")
    assert (small.crop_size, small.lr, small.teacher) == (160, RECIPES["small"]["lr"], None)
    vit = recipe_config("distill", images=(), boxes=(), out=tmp_path, arch="vit-deit-tiny/16")
    lite = recipe_config("distill", images=(), boxes=(), out=tmp_path, arch="mal-lite0")
    assert (lite.crop_size, lite.head_width, lite.start_from) == (192, 64, Path("efficientnet-lite0"))
    assert (vit.crop_size, vit.head_width) == (TrainConfig.crop_size, TrainConfig.head_width)
    assert vit.encoder_lr == 1.0 and vit.start_from is None and vit.teacher == Path("bundled")
    with pytest.raises(InputError, match="--teacher is for --recipe distill"):
        recipe_config("small", images=(), boxes=(), out=tmp_path, teacher=Path("bundled"))


@pytest.mark.parametrize(("arch", "most", "least"), [("mal-edge", 2_500_000, 1_500_000), ("mal-nano", 1_000_000, 0)])
def test_small_networks_begin_with_the_encoder_of_a_larger_one(
    arch: str, most: int, least: int, tmp_path: Path
) -> None:
    large = NetworkConfig("mal-lite0", crop_size=64, mask_head_hidden_channel=16)
    state = build_network(large).state_dict()
    save_checkpoint(tmp_path / "large.pth", large, student=state, meta={"pretrained": {"file": "x"}})
    own = recipe_config("distill", images=(), boxes=(), out=tmp_path, arch=arch)
    network = build_network(NetworkConfig(arch, crop_size=64, mask_head_hidden_channel=own.head_width))
    assert least < sum(weight.numel() for weight in network.parameters()) <= most
    loaded = load_into(network, read_checkpoint(tmp_path / "large.pth"), "student")
    assert loaded.count and all(not name.startswith("backbone.encoder.") for name in loaded.fresh)
    for name, value in network.state_dict().items():
        if name.startswith("backbone.encoder."):
            torch.testing.assert_close(value, state[name], msg=name)
    with pytest.raises(InputError, match="lacks"):
        load_into(build_network(replace(large, arch="mal-lite1")), read_checkpoint(tmp_path / "large.pth"), "student")


def test_a_checkpoint_as_the_teacher(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = NetworkConfig("vit-deit-tiny/16", "patch", 64, depth=1)
    save_checkpoint(tmp_path / "tiny.pth", tiny, student=build_network(tiny).state_dict())
    given = ["train", "--teacher", tmp_path / "tiny.pth", "--arch", "mal-nano", "--out", tmp_path / "run", "--quiet"]
    given += ["--images", discs / "pictures", "--boxes", discs / "boxes.json", "--batch", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, [str(a) for a in (*given, "--epochs", "1", "--crop-size", "64")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "last.pth").is_file() and (tmp_path / "run" / "teacher.masks").is_file()


def test_command_line_errors_are_one_line(discs: Path, bright: Path, tmp_path: Path) -> None:
    tiny = NetworkConfig("vit-deit-tiny/16", "patch", 64, depth=1)
    save_checkpoint(tmp_path / "tiny.pth", tiny, student=build_network(tiny).state_dict())
    with closing(MaskCache(tmp_path / "other.masks", {"teacher": "another"})):
        pass
    (tmp_path / "text.masks").write_text("no database " * 200)
    (tmp_path / "plain.onnx").write_bytes(b"no onnx")
    foreign = json.dumps({"schema": 99})
    write_foreign(bright, tmp_path / "foreign.onnx", foreign)
    given = ["train", "--recipe", "distill", "--images", discs / "pictures", "--boxes", discs / "boxes.json"]
    given += ["--batch", "2", "--device", "cpu"]
    for more, message in (
        (["--teacher", tmp_path / "tiny.pth", "--arch", "vit-mae-base/16"], "no larger than its teacher"),
        (["--teacher", tmp_path / "none.pth"], "no such model file"),
        (["--teacher", tmp_path / "plain.onnx"], "plain.onnx"),
        (["--teacher", tmp_path / "foreign.onnx"], "foreign.onnx"),
        (["--teacher", bright, "--teacher-cache", tmp_path / "other.masks"], "another teacher"),
        (["--teacher", bright, "--teacher-cache", tmp_path / "text.masks"], "not a file of soft masks"),
        (["--teacher", bright, "--targets", tmp_path / "t.npz"], "give one of them"),
        (["--teacher", bright, "--recipe", "small"], "--recipe distill"),
    ):
        before = (tmp_path / "text.masks").read_bytes()
        done = CliRunner().invoke(app, [str(a) for a in (*given, *more, "--out", tmp_path / "run")])
        assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") <= 2, (more, done.output)
        assert not (tmp_path / "run").exists() and (tmp_path / "text.masks").read_bytes() == before


def write_foreign(model: Path, path: Path, document: str) -> None:
    """A copy of a model whose contract is another document."""
    import onnx

    proto = onnx.load(model)
    for entry in proto.metadata_props:
        if entry.key == "mal_trt":
            entry.value = document
    onnx.save(proto, path)
