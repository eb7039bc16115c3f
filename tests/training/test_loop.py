"""The training run: the published order of a step, resume after a kill, checkpoints, logs, bad losses."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from killed_run import ended_at, same_weights
from mal_trt.base.errors import InputError, RunError
from mal_trt.training.checkpoint import read_checkpoint, save_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.data import SampleRules
from mal_trt.training.loop import Numbers, sample_rules, train
from mal_trt.training.optimiser import parameter_groups
from mal_trt.training.pictures import Order
from mal_trt.training.schedule import momentum_at
from mal_trt.training.trainer import Trainer, network_options
from mal_trt.training.validation import Validation

GOLDEN = Path(__file__).parents[1] / "golden"
NUMBERS = json.loads((GOLDEN / "losses.json").read_text())["training_step"]


def batch_of(pixels: np.ndarray, mask: np.ndarray, **more: Any) -> Any:
    count = len(pixels)
    return {
        "student": torch.from_numpy(pixels),
        "teacher": torch.from_numpy(pixels),
        "mask": torch.from_numpy(mask),
        "area": torch.full((count,), 5000.0),
        "exact": torch.zeros(count, dtype=torch.bool),
        "row": torch.arange(count),
        **more,
    }


@pytest.mark.parametrize("recipe", ["tao", "small"])
def test_a_killed_run_resumes_to_the_same_weights(plan: TrainConfig, recipe: Any) -> None:
    plan = replace(plan, recipe=recipe, lr=1e-4, epochs=0.8, figures=0.3, drop_path=0.1, teacher_momentum_end=1.0)
    whole = train(replace(plan, out=plan.out / "whole"))

    plan = replace(plan, out=plan.out / "killed", checkpoint_minutes=0.0)
    with ended_at(5):
        train(plan)
    with pytest.raises(InputError, match="--resume"):
        train(plan)
    with pytest.raises(InputError, match="another lr"):
        train(replace(plan, resume=True, lr=0.5))
    same_weights(train(replace(plan, resume=True)), whole)


def test_published_step_order(plan: TrainConfig) -> None:
    """Step 0 runs at the full rate with zero loss, step 1 at rate 0; the teacher starts apart from the student."""
    trainer = Trainer(replace(plan, lr=1e-3), steps_per_epoch=10)
    heads = [n.mask_head.convs[0].conv.weight.clone() for n in (trainer.student, trainer.teacher)]
    assert not torch.equal(*heads)
    mask = np.zeros((4, 64, 64), np.uint8)
    mask[:, 16:48, 16:48] = 1
    batch = batch_of(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8), mask)
    rates, average = [], heads[1]
    for step in range(4):
        before = trainer.student.mask_head.convs[0].conv.weight.clone()
        rates.append(trainer.lr)
        terms = trainer.train_step(batch)
        changed = not torch.equal(before, trainer.student.mask_head.convs[0].conv.weight)
        average = 0.996 * average + 0.004 * trainer.student.mask_head.convs[0].conv.weight.detach()
        assert changed == (step != 1)
        assert (terms.total.item() == 0) == (step == 0)
    assert rates == pytest.approx([4e-3, 0.0, 4e-4, 8e-4])
    torch.testing.assert_close(trainer.teacher.mask_head.convs[0].conv.weight, average, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["epoch1", "ratio2"])
def test_golden_step(plan: TrainConfig, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A whole step with the published logits in place of the networks'."""
    expected = NUMBERS[name]
    with np.load(GOLDEN / "losses.npz") as golden:
        pixels, mask = golden["image_u8"], golden["mask256"]
        student, teacher = (torch.from_numpy(golden[f"{part}_logits"]) for part in ("student", "teacher"))
    plan = replace(
        plan, crop_size=256, lr=1e-6 / 4, epochs=10.0, crf_size_ratio=expected["crf_size_ratio"], crf_iterations=100
    )
    trainer = Trainer(plan, steps_per_epoch=10)
    trainer.step = 10 * expected["epoch"] + expected["local_step"]
    logits = student.clone().requires_grad_()
    monkeypatch.setattr(trainer.student, "forward", lambda image, area: logits)
    monkeypatch.setattr(trainer.teacher, "forward", lambda image, area: teacher)
    terms = trainer.train_step(batch_of(pixels, mask.reshape(3, 256, 256)))
    for term in ("total", "mil", "crf"):
        assert getattr(terms, term).item() == pytest.approx(expected[term], abs=1e-5)
    assert trainer.lr == pytest.approx(expected["lr_after_step"], abs=1e-12)
    assert logits.grad is not None
    assert logits.grad.abs().sum().item() == pytest.approx(expected["grad_abs_sum"], abs=1e-3)


def test_accumulation_is_one_larger_batch(plan: TrainConfig) -> None:
    rng = np.random.default_rng(0)
    pixels, mask = rng.integers(0, 255, (4, 64, 64, 3), np.uint8), np.zeros((4, 64, 64), np.uint8)
    mask[:, 10:50, 20:60] = 1
    halves = [batch_of(pixels[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    one = Trainer(replace(plan, lr=1e-4), 10)
    two = Trainer(replace(plan, lr=1e-4, batch=2, accumulate=2), 10)
    for _ in range(4):
        whole, parts = one.train_step(batch_of(pixels, mask)), two.train_step(*halves)
        # the published mean divides by B + 1e-4, so halves weigh 2.5e-5 less
        torch.testing.assert_close(whole.total, parts.total, rtol=1e-4, atol=1e-6)
    for a, b in zip(one.student.parameters(), two.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


def test_processes_share_a_step() -> None:
    parts = [list(Numbers(2, rank, 3, first=1, last=3, per_step=12)) for rank in range(3)]
    assert parts[1] == [[14, 15], [20, 21], [26, 27], [32, 33]]
    assert sorted(n for part in parts for batch in part for n in batch) == list(range(12, 36))
    assert len(Numbers(2, 0, 3, 1, 3, 12)) == 4


def test_validation_keeps_the_best(plan: TrainConfig, drawn: Path) -> None:
    plan = replace(plan, val_images=drawn / "pictures", val_boxes=drawn / "val.json", validate_steps=2, keep=2)
    plan = replace(plan, lr=1e-4, picture_steps=5, log_steps=5, thresholds=(0.1, 0.2, 0.3), val_weights="mixed")
    screen = Console(file=io.StringIO(), width=200)
    train(plan, screen)
    with (plan.out / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == [2, 4, 6, 8, 10]
    figures = {f"{float(r['miou']):.4f}" for r in rows}
    assert all(0 < float(f) < 1 for f in figures)
    kept = sorted(p.name for p in plan.out.glob("best-*.pth"))
    assert len(kept) == 2
    best = max(figures)
    assert sum(best in name for name in kept) >= 1
    assert read_checkpoint(plan.out / kept[0]).trainer is None
    with pytest.raises(InputError, match="no training state"):
        train(replace(plan, out=plan.out / "again", resume_from=plan.out / kept[0]))
    assert f"mIoU {rows[0]['miou'][:6]}" in screen.file.getvalue()  # type: ignore[attr-defined]
    assert [r["step"] for r in csv.DictReader((plan.out / "log.csv").open())] == ["5", "10"]
    events = read_events(plan.out / "tensorboard")
    assert {"train/total", "train/lr", "train/boxes_per_s", "val/miou", "samples"} <= set(events)


def read_events(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    picture = events.Images("samples")[0]
    assert (picture.width, picture.height) == (640, 640)
    return {*tags["scalars"], *tags["images"]}


def test_validation_without_masks(plan: TrainConfig, drawn: Path) -> None:
    with pytest.raises(InputError, match="no annotation has a mask"):
        train(replace(plan, val_images=drawn / "pictures", val_boxes=drawn / "boxes.json"))


@pytest.mark.parametrize("ids", [[None], [7], [[1, 2]]])
def test_validation_does_not_depend_on_ids(plan: TrainConfig, drawn: Path, tmp_path: Path, ids: list[Any]) -> None:
    """Ids that are missing, that come twice, or that are none."""
    document = json.loads((drawn / "val.json").read_text())
    document["annotations"] = [{**record, "id": ids[0]} for record in document["annotations"]]
    (tmp_path / "ids.json").write_text(json.dumps(document))
    found = [
        Validation(replace(plan, val_images=drawn / "pictures", val_boxes=path)).run(Trainer(plan, 10))
        for path in (drawn / "val.json", tmp_path / "ids.json")
    ]
    assert found[0]["count"] == 10 and found[0] == found[1]


def test_a_full_disk_keeps_the_checkpoint_before(plan: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(plan, checkpoint_steps=4)
    saved: list[int] = []

    def full(trainer: Trainer, path: Path, resumable: bool = True) -> None:
        saved.append(trainer.step)
        if trainer.step == 8:
            with monkeypatch.context() as patch:
                patch.setattr("os.fsync", no_space)
                save(trainer, path, resumable)
        elif trainer.step == 10:
            assert read_checkpoint(path).meta["step"] == 4
            assert [p.name for p in path.parent.glob(".*.part*")] == [], "no half file is left"
            save(trainer, path, resumable)
        else:
            save(trainer, path, resumable)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    save = Trainer.save
    monkeypatch.setattr(Trainer, "save", full)
    screen = Console(file=io.StringIO(), width=300)
    assert read_checkpoint(train(plan, screen)).meta["step"] == 10
    assert saved == [4, 8, 10]
    assert "checkpoint of step 8 lost" in screen.file.getvalue()  # type: ignore[attr-defined]
    monkeypatch.setattr(Trainer, "save", save)
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(RunError, match="No space left"):
        train(replace(plan, out=plan.out / "other"))


def test_a_loss_that_is_no_number_names_its_boxes(plan: TrainConfig, drawn: Path) -> None:
    with pytest.raises(RunError, match=r"at step \d+.*bad-batch\.json"):
        train(replace(plan, lr=1e30, epochs=3, warmup_epochs=0.1))
    left = json.loads((plan.out / "bad-batch.json").read_text())
    known = {a["id"] for a in json.loads((drawn / "boxes.json").read_text())["annotations"]}
    assert len(left["annotations"]) == 4 and {a["id"] for a in left["annotations"]} <= known
    assert all(a["picture"] == f"{a['id']}.png" for a in left["annotations"])
    assert not math.isfinite(float(left["losses"]["total"]))


def test_logs_that_cannot_be_written(plan: TrainConfig) -> None:
    (plan.out / "log.csv").mkdir(parents=True)
    (plan.out / "tensorboard").touch()
    (plan.out / "val.csv").write_bytes(b"step\n1,\xff\n")
    screen = Console(file=io.StringIO(), width=300)
    train(replace(plan, log_steps=2), screen)
    assert screen.file.getvalue().count("log not written") == 1  # type: ignore[attr-defined]


def test_a_resumed_run_has_the_same_boxes(plan: TrainConfig, drawn: Path, tmp_path: Path) -> None:
    document = json.loads((drawn / "boxes.json").read_text())
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    plan = replace(plan, boxes=(tmp_path / "boxes.json",), resume=True, checkpoint_steps=2)
    with ended_at(5):
        train(plan)
    document["annotations"][0]["bbox"][2] -= 1
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="was trained on other boxes or pictures"):
        train(plan)


def test_damaged_pictures_are_counted(plan: TrainConfig, drawn: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "some"
    pictures.mkdir()
    for path in (drawn / "pictures").iterdir():
        (pictures / path.name).write_bytes(path.read_bytes())
    whole = (pictures / "7.png").read_bytes()
    (pictures / "7.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "8.png").unlink()
    screen = Console(file=io.StringIO(), width=200)
    train(replace(plan, images=(pictures,), epochs=2, batch=3), screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "left out: 1 picture missing" in said
    assert "skipped: 1 boxes in 1 pictures that cannot be read (7.png)" in said


def test_most_boxes_without_a_picture(plan: TrainConfig, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    kept = sorted((drawn / "pictures").iterdir())[:4]
    for path in kept:
        (tmp_path / "few" / path.name).write_bytes(path.read_bytes())
    screen = Console(file=io.StringIO(), width=200)
    train(replace(plan, images=(tmp_path / "few",), epochs=1, batch=1), screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"WARNING: \d+ of \d+ boxes are NOT trained on, most because: picture missing", said)


def test_too_few_boxes_for_a_batch(plan: TrainConfig) -> None:
    with pytest.raises(InputError, match="lower --batch"):
        train(replace(plan, batch=100))


def test_too_few_epochs_for_a_step(plan: TrainConfig) -> None:
    with pytest.raises(InputError, match=r"epochs 0\.05: .*raise --epochs"):
        train(replace(plan, epochs=0.05))
    assert Trainer(replace(plan, epochs=1 / 49), 49).total_steps == 1


def test_layer_decay_and_frozen_stages(plan: TrainConfig) -> None:
    trainer = Trainer(replace(plan, layer_decay=0.5, frozen_stages=(1,), depth=3, recipe="small"), 10)
    scales = {id(p): g["lr_scale"] for g in parameter_groups(trainer.student, 0.5) for p in g["params"]}
    found = {n: scales.get(id(p)) for n, p in trainer.student.named_parameters()}
    assert found["backbone.patch_embed.proj.0.0.weight"] == 0.0625
    assert found["backbone.blocks.0.attn.qkv.weight"] is None, "frozen"
    assert found["backbone.blocks.1.attn.qkv.weight"] == 0.25
    assert found["backbone.blocks.2.attn.qkv.weight"] == 0.5
    assert found["backbone.norm.weight"] == found["roi_head.mlp1.weight"] == 1
    trainer._set_lr(8.0)
    assert sorted(g["lr"] for g in trainer.optimizer.param_groups) == [0.5, 2.0, 4.0, 8.0]
    mask = np.ones((2, 64, 64), np.uint8)
    extra = {"prior": torch.zeros(2, 64, 64, dtype=torch.uint8), "has_prior": torch.zeros(2, dtype=torch.bool)}
    extra["trust"] = torch.ones(2)
    before = trainer.student.backbone.blocks[0].attn.qkv.weight.clone()
    trainer.train_step(batch_of(np.full((2, 64, 64, 3), 99, np.uint8), mask, **extra))
    assert torch.equal(before, trainer.student.backbone.blocks[0].attn.qkv.weight)
    with pytest.raises(InputError, match="vit-"):
        Trainer(replace(plan, arch="resnet18", layout=None, depth=None, layer_decay=0.5), 10)


def test_momentum_schedule() -> None:
    assert [momentum_at(x, 0.9, None) for x in (0, 1)] == [0.9, 0.9]
    assert [momentum_at(x, 0.9, 1.0) for x in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])


def test_from_takes_the_network_of_the_checkpoint(plan: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer(plan, 10)
    path = tmp_path / "start.pth"
    save_checkpoint(path, trainer.network_config, student=trainer.student.state_dict())
    options = network_options(path)
    again = Trainer(TrainConfig(plan.images, plan.boxes, plan.out, device="cpu", **options), 10)
    again.start(path)
    for network in (again.student, again.teacher):
        for a, b in zip(network.parameters(), trainer.student.parameters(), strict=True):
            assert torch.equal(a, b)


def test_devices_this_machine_lacks(plan: TrainConfig) -> None:
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        train(replace(plan, precision="fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cpu"):
            train(replace(plan, device="cuda"))


def test_bf16_trains(plan: TrainConfig) -> None:
    train(replace(plan, precision="bf16", lr=1e-4, log_steps=5))
    with (plan.out / "log.csv").open() as file:
        assert [math.isfinite(float(row["total"])) for row in csv.DictReader(file)] == [True, True]
    student = read_checkpoint(plan.out / "last.pth").student
    assert student is not None and all(t.dtype == torch.float32 for t in student.values() if t.is_floating_point())


def test_what_a_run_says_of_its_samples(tmp_path: Path) -> None:
    given = {"crop_size": 64, "seed": 5, "margin_rate": (0.1, 0.2), "figures": 0.25}
    order = {"boxes_per_picture": 3, "balance": 0.5, "together": 2}
    config = TrainConfig((tmp_path,), (tmp_path,), tmp_path, **given, **order)
    assert sample_rules(config) == SampleRules(64, 5, (0.1, 0.2), Order(3, 0.5, 2), 0.25)
