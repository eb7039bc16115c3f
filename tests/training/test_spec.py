"""Experiment specs: TAO's are accepted as they are, what is wrong is named by file, line and field."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("omegaconf")

from omegaconf import OmegaConf

from mal_trt.base.errors import InputError
from mal_trt.cli import app
from mal_trt.training.config import RECIPES, TrainConfig, recipe_config
from mal_trt.training.spec import read_spec, spec_text
from mal_trt.training.spec_schema import Spec

TAO = json.loads((Path(__file__).parents[1] / "golden" / "defaults.json").read_text())["tao"]
# The samples of TAO's documentation, 5.2 and 5.5.
OLD = """\
gpus: [0, 1]
strategy: 'ddp_sharded'
results_dir: '/path/to/result/dir'
checkpoint: '/weights/mae.pth'
dataset:
  train_ann_path: '/datasets/coco/annotations/instances_train2017.json'
  train_img_dir: '/datasets/coco/raw-data/train2017'
  val_ann_path: '/coco/annotations/instances_val2017.json'
  val_img_dir: '/datasets/coco/raw-data/val2017'
  load_mask: True
  crop_size: 512
inference:
  ann_path: '/dataset/sample.json'
  img_dir: '/dataset/sample_dir'
  label_dump_path: '/dataset/sample_output.json'
model:
  arch: 'vit-mae-base/16'
train:
  num_epochs: 10
  batch_size: 4
  use_amp: True
"""
NEW = """\
strategy: 'fsdp'
results_dir: '/results'
dataset:
  train_ann_path: a.json
  train_img_dir: a
  load_mask: False
  val_ann_path: b.json
  val_img_dir: b
model:
  arch: 'vit-mae-base/16'
  frozen_stages: [0, 1]
  not_adjust_scale: True
train:
  num_epochs: 10
  checkpoint_interval: 500
  checkpoint_interval_unit: step
  validation_interval: 5
  batch_size: 4
  seed: 1234
  num_gpus: 4
  gpu_ids: [0]
  use_amp: False
  optim_momentum: 0.9
  lr: 0.0000015
  min_lr_rate: 0.2
  wd: 5e-4
  warmup_epochs: 1
  crf_kernel_size: 3
  crf_num_iter: 100
  loss_mil_weight: 4
  test_margin_rate: [0.4, 0.4]
evaluate:
  checkpoint: ???
  use_teacher_test: True
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


def test_every_field_and_default_of_tao(tmp_path: Path) -> None:
    """All of TAO's fields at TAO's defaults, its own defaults being ours."""
    plain: Any = OmegaConf.to_container(OmegaConf.structured(Spec))
    for section, values in TAO.items():
        if isinstance(values, dict):
            for name, default in values.items():
                if default != "???":
                    assert plain[section][name] == default, f"{section}.{name}"
        else:
            assert plain[section] == values
    values = read_spec(write(tmp_path, json.dumps(TAO)))
    base = asdict(TrainConfig((), (), Path()))
    assert {k: v for k, v in values.items() if k != "head_out" and base[k] != v} == {}
    assert values["head_out"] == 256


def test_documented_samples(tmp_path: Path) -> None:
    old = TrainConfig(**read_spec(write(tmp_path, OLD)))
    assert old.devices == (0, 1) and old.out == Path("/path/to/result/dir/train")
    assert old.start_from == Path("/weights/mae.pth") and old.batch == 4
    assert old.val_boxes == Path("/coco/annotations/instances_val2017.json")
    new = TrainConfig(**read_spec(write(tmp_path, NEW)))
    assert new.devices == 4 and new.lr == 1.5e-6 and new.weight_decay == 5e-4
    assert new.frozen_stages == (0, 1) and not new.adjust_scale
    assert new.val_boxes is None, "load_mask is false: nothing to validate against"
    assert (new.checkpoint_steps, new.checkpoint_epochs, new.validate_epochs) == (500, None, 5)
    assert new.precision == "fp32" and new.val_weights == "teacher" and new.test_margin == 0.4


@pytest.mark.parametrize("recipe", ["tao", "small"])
def test_printed_spec_is_read_back(tmp_path: Path, recipe: Any) -> None:
    config = recipe_config(recipe, images=(Path("a"), Path("b")), boxes=(Path("c"), Path("d")), out=Path())
    text = spec_text(config)
    assert all("  # " in line for line in text.splitlines() if line and not line.endswith(":") and line[0] != "#")
    again = recipe_config(**{"out": Path(), **read_spec(write(tmp_path, text))})
    assert {f.name for f in fields(config) if getattr(again, f.name) != getattr(config, f.name)} <= {"head_out"}


def test_recipe_spec_override_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each beats the one before; a spec that does not say keeps the recipe's value."""
    runs: list[TrainConfig] = []
    monkeypatch.setattr("mal_trt.training.loop.train", lambda config, **_: runs.append(config) or config.out)
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a.json").touch()
    spec = write(
        tmp_path,
        "results_dir: r\ndataset: {train_ann_path: a.json, train_img_dir: a}\n"
        "train: {recipe: small, lr: 3e-6, batch_size: 5, num_epochs: 7}\n",
    )
    arguments = ["train", "-e", str(spec), "train.batch_size=6", "train.num_epochs=8", "--epochs", "9"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    (config,) = runs
    assert (config.recipe, config.lr, config.batch, config.epochs) == ("small", 3e-6, 6, 9)
    assert config.min_area == RECIPES["small"]["min_area"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lr: 1\n  batchsize: 3\n", "spec.yaml:3: train.batchsize: no such field; did you mean train.batch_"),
        ("model:\n  arch: x\nlr: 3\n", "spec.yaml:3: lr: no such field; did you mean train.lr?"),
        ("trian:\n  lr: 3\n", "spec.yaml:1: trian: no such field; did you mean train?"),
        ("train:\n  num_epochs: ten\n", "spec.yaml:2: train.num_epochs: Value 'ten'"),
        ("dataset:\n\n  crop_size: 51.5\n", "spec.yaml:3: dataset.crop_size: Value '51.5'"),
        ("train:\n  optim_type: sgd\n", "spec.yaml:2: train.optim_type: 'sgd'; expected adamw"),
        ("train:\n  cudnn:\n    benchmrk: true\n", "spec.yaml:3: train.cudnn.benchmrk: no such field; did you mean"),
        ("train:\n  mask_thres: [0.1, 0.2]\n", "spec.yaml:2: train.mask_thres: 2 values; expected 1 or 3"),
        ("train: 3\n", "spec.yaml:1: train: "),
        ("train:\n  lr: [1\n", "not YAML"),
        ("- 1\n- 2\n", "not a spec"),
        ("train:\n  lr: 1\n  lr: 2\n", "not YAML"),
        ("train: {num_gpus: 3, gpu_ids: [0, 1]}\n", "train.num_gpus is 3 but train.gpu_ids lists 2"),
        ("train: {lr: '${nowhere}'}\n", "nowhere"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_spec(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "expected key=value"),
        ("train.lr=fast", "train.lr: Value 'fast'"),
        ("train.learning_rate=1", "train.learning_rate: no such field"),
    ],
)
def test_override_errors(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_spec(None, [override])


def test_missing_spec_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "-e", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "none.yaml: cannot be read" in result.stderr and result.stderr.count("\n") == 1


def test_nothing_to_train_on() -> None:
    result = CliRunner().invoke(app, ["train", "--images", "a", "--out", "x"])
    assert result.exit_code == 2 and "dataset.train_ann_path" in result.stderr


def test_print_spec_follows_the_recipe() -> None:
    printed = CliRunner().invoke(app, ["train", "--print-spec", "--recipe", "small", "--lr", "1e-3"]).stdout
    assert "recipe: small" in printed and "lr: 0.001 " in printed and "min_obj_size: 256.0" in printed


def test_print_spec_takes_a_spec_and_a_checkpoint(tmp_path: Path) -> None:
    """What it prints is what a run with the same words would be."""
    (tmp_path / "spec.yaml").write_text("train:\n  lr: 2.0e-5\nmodel:\n  arch: mal-nano\n")
    words = ["train", "--print-spec", "-e", str(tmp_path / "spec.yaml"), "train.num_epochs=7"]
    printed = CliRunner().invoke(app, words).stdout
    assert all(line in printed for line in ("arch: mal-nano ", "lr: 2.0e-05 ", "num_epochs: 7.0 ", "recipe: small "))
    tuned = CliRunner().invoke(app, ["train", "--print-spec", "--from", "bundled"]).stdout
    assert all(line in tuned for line in ("arch: mal-lite0 ", "crop_size: 192 ", "patience: 3 ", "recipe: small "))
    (tmp_path / "again.yaml").write_text(tuned)
    assert CliRunner().invoke(app, ["train", "--print-spec", "-e", str(tmp_path / "again.yaml")]).stdout == tuned
