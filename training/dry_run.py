"""`train --dry-run`: what a run would do, and how long, measured on a few real steps that nobody keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mal_trt.base.outputs import could_make_folder
from mal_trt.training.config import TrainConfig
from mal_trt.training.kept_checkpoints import BEST, LAST
from mal_trt.training.loop import PreparedRun, launched, prepare_run, validation_steps
from mal_trt.training.teaching import Sampled, cache_path, sample_masks

SECONDS = 5.0  # how long to measure, about
WARM_UP, LEAST_STEPS = 2, 3  # steps before and while it is measured


@dataclass(frozen=True)
class TrainForecast:
    """What a training run would do.

    - `boxes`, `pictures`: to train on; `held_back`: boxes that it judges itself by; `skipped`: annotations left out, by
      reason.
    - `arch`, `weights`: the network, and how many weights a copy of it has. `recipe`, `device`, `precision`: how.
    - `boxes_per_step`, `steps_per_epoch`, `epochs`, `steps`: in all; `done`: steps that an earlier run has done.
      `validations`: that are due. A run with patience may end earlier.
    - `writes`: files and folders that would be made, besides the best checkpoints.
    - `measured`: steps that were made to measure, in `measured_seconds`; `seconds`: for all that are left, without the
      validations.
    - `teacher_boxes`: boxes whose masks the teacher of the recipe distill has to draw first, in `teacher_seconds`.
    - `memory_bytes`: the most that PyTorch held on a GPU; None on a processor.
    """

    boxes: int
    pictures: int
    held_back: int
    skipped: dict[str, int]
    arch: str
    weights: int
    recipe: str
    device: str
    precision: str
    boxes_per_step: int
    steps_per_epoch: int
    epochs: float
    steps: int
    done: int
    validations: int
    writes: tuple[Path, ...]
    measured: int
    measured_seconds: float
    seconds: float
    boxes_per_second: float
    teacher_boxes: int
    teacher_seconds: float
    memory_bytes: int | None


def forecast(config: TrainConfig, show: bool = True) -> TrainForecast:
    """What `train` would do with this configuration, and how long it would take. The same errors as there; nothing is
    written. show: say meanwhile what is left out of the boxes."""
    could_make_folder(config.out)
    # Decoding all pictures first would be most of the work; the first steps then decode theirs themselves.
    config = replace(config, preload=False)
    with launched(config, None, show) as (fabric, console, _):
        prepared = prepare_run(config, fabric, console)
        trainer = prepared.trainer
        done = trainer.step
        teacher = Sampled({}, 0, 0.0)
        if config.teacher is not None:
            teacher = sample_masks(config, fabric, prepared.boxes, SECONDS)
            prepared = replace(prepared, priors=teacher.masks)
        times = _timed(prepared)
        counted = times[WARM_UP:] or times
        each = sum(counted) / len(counted) if counted else 0.0
        left = trainer.total_steps - done
        every = validation_steps(trainer)
        judged = 0 if prepared.judge is None else trainer.total_steps // every - done // every
        skipped, cuda = dict(prepared.boxes.skipped), fabric.device.type == "cuda"
        return TrainForecast(
            boxes=len(prepared.boxes),
            pictures=len(set(prepared.boxes.picture.tolist())),
            held_back=prepared.held,
            skipped=skipped,
            arch=config.arch,
            weights=sum(weight.numel() for weight in trainer.student.parameters()),
            recipe=config.recipe,
            device=str(fabric.device),
            precision=str(fabric.strategy.precision.precision),
            boxes_per_step=trainer.boxes_per_step,
            steps_per_epoch=trainer.steps_per_epoch,
            epochs=config.epochs,
            steps=trainer.total_steps,
            done=done,
            validations=judged,
            writes=_written(config),
            measured=len(counted),
            measured_seconds=sum(counted),
            seconds=each * left,
            boxes_per_second=trainer.boxes_per_step / each if each else 0.0,
            teacher_boxes=teacher.missing,
            teacher_seconds=teacher.seconds,
            memory_bytes=torch.cuda.max_memory_allocated() if cuda else None,
        )


def _timed(prepared: PreparedRun) -> list[float]:
    """Seconds of each of the first steps, the waiting for their crops included."""
    trainer, times = prepared.trainer, list[float]()
    batches = iter(prepared.loader())
    while trainer.step < trainer.total_steps:
        start = time.monotonic()
        trainer.train_step(*[next(batches) for _ in range(trainer.config.accumulate)])
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
        # One process decides for all: a step that another did not make would wait for it forever.
        if trainer.fabric.broadcast(len(times) >= WARM_UP + LEAST_STEPS and sum(times[WARM_UP:]) >= SECONDS):
            break
    return times


def _written(config: TrainConfig) -> tuple[Path, ...]:
    files = tuple(config.out / name for name in _names(config))
    return (*files, cache_path(config)) if config.teacher is not None else files


def _names(config: TrainConfig) -> list[str]:
    names = [LAST, "log.csv", "tensorboard"]
    names += [BEST] if config.patience is not None else []
    if config.val_boxes is not None:
        return [*names, "val.csv"]
    return [*names, "fit.csv"] if config.patience is not None else names
