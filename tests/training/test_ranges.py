"""Values that make no sense are refused in one line, and a run goes on only as the run it was."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mal_trt.base.errors import InputError, RunError
from mal_trt.cli import app
from mal_trt.training.config import TrainConfig
from mal_trt.training.loop import train
from mal_trt.training.ranges import MOST_SEED
from mal_trt.training.trainer import BadLoss, Trainer


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("seed", -5), ("seed", 10**22), ("epochs", 0), ("epochs", -1), ("epochs", "inf"), ("lr", "nan")),
        *(("lr", -1), ("lr", 0), ("encoder-lr", -3), ("teacher-momentum", 3), ("teacher-momentum-end", "nan")),
        *(
            ("checkpoint-minutes", "nan"),
            ("devices", 0),
            ("devices", -2),
            ("warmup-epochs", "nan"),
            ("min-area", "nan"),
        ),
    ],
)
def test_nonsense_is_one_line(option: str, value: Any, tmp_path: Path) -> None:
    words = ["train", "--boxes", "no.json", "--out", str(tmp_path / "run"), f"--{option}", str(value)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: {option.replace('-', ' ')} \S+: expected [^\n]*\n", result.output)


@pytest.mark.parametrize("field", ["train.seed=-5", "train.num_epochs=0", "train.batch_size=0", "train.wd=-1"])
def test_nonsense_in_a_spec(field: str, drawn: Path, tmp_path: Path) -> None:
    places = [f"dataset.train_ann_path={drawn / 'boxes.json'}", f"dataset.train_img_dir={drawn / 'pictures'}"]
    result = CliRunner().invoke(app, ["train", *places, f"results_dir={tmp_path}", field])
    assert result.exit_code == 2 and "expected" in result.output and result.output.count("\n") == 1


def test_unusual_values_stay(plan: TrainConfig) -> None:
    for values in (
        {"epochs": 0.01, "warmup_epochs": 0.0},
        {"checkpoint_minutes": 0.0, "encoder_lr": 0.0},
        {"checkpoint_minutes": float("inf"), "teacher_momentum": 0.0, "teacher_momentum_end": 1.0},
        {"devices": -1},
        {"devices": (0, 2), "boxes_per_picture": None},
    ):
        replace(plan, **values)
    train(replace(plan, epochs=0.2, seed=MOST_SEED, drop_path=0.1))


def test_what_judges_a_run_with_patience_stays(plan: TrainConfig, drawn: Path) -> None:
    plan = replace(plan, recipe="small", epochs=0.2, patience=2)
    train(plan)
    again = replace(plan, resume=True)
    train(again)
    for name, value in (("val_boxes", drawn / "val.json"), ("validate_steps", 1), ("thresholds", (0.5,))):
        more = {"val_images": drawn / "pictures"} if name == "val_boxes" else {}
        with pytest.raises(InputError, match=f"was trained with another {name}"):
            train(replace(again, **{name: value}, **more))


def test_without_patience_validation_is_free(plan: TrainConfig, drawn: Path) -> None:
    train(replace(plan, epochs=0.2))
    judged = {"val_boxes": drawn / "val.json", "val_images": drawn / "pictures", "val_limit": 4}
    train(replace(plan, epochs=0.2, resume=True, validate_steps=1, **judged))
    assert not (plan.out / "fit.csv").exists()


def test_advice_on_a_bad_loss_works(plan: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"lower --lr or use --precision fp32, and start again$"):
        train(replace(plan, out=tmp_path / "lost", lr=1e30, warmup_epochs=0.01, checkpoint_epochs=None))
    step = Trainer.train_step

    def fail_at_two(self: Trainer, *batches: Any) -> Any:
        if self.step == 2:
            raise BadLoss(2, {"total": math.nan}, [0])
        return step(self, *batches)

    monkeypatch.setattr(Trainer, "train_step", fail_at_two)
    plan = replace(plan, checkpoint_steps=1)
    last = plan.out / "last.pth"
    with pytest.raises(RunError, match=f"go on from its weights with --from {last} and another --out$"):
        train(plan)
    monkeypatch.setattr("mal_trt.training.loop._finite", lambda _: False)  # weights that were lost already
    with pytest.raises(RunError, match=r"and start again with another --out$"):
        train(replace(plan, resume=True))
    monkeypatch.undo()
    train(replace(plan, out=tmp_path / "third", lr=1e-7, start_from=last, epochs=0.1))


def test_nothing_to_resume_is_said(drawn: Path, tmp_path: Path) -> None:
    words = ["train", "--boxes", str(drawn / "boxes.json"), "--images", str(drawn / "pictures"), "--resume"]
    words += ["--out", str(tmp_path / "run"), "--arch", "vit-mal-tiny/16", "--depth", "1", "--head-width", "16"]
    words += ["--crop-size", "64", "--epochs", "0.1", "--min-area", "100", "--device", "cpu", "--workers", "0"]
    said = f"nothing to resume in {tmp_path / 'run'}: starting anew"
    for first in (True, False):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert (said in result.output) == first
