"""A run with a teacher: whether student and teacher go together, and the teacher's masks for the run's boxes, drawn
where they are missing. The teacher itself is `teacher`, the file `mask_cache`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.base.progress import Progress
from mal_trt.training.config import TrainConfig
from mal_trt.training.exported import read_start
from mal_trt.training.mask_cache import MaskCache, facts_text
from mal_trt.training.network import MALNetwork
from mal_trt.training.pictures import TrainingBoxes
from mal_trt.training.prior import Prior
from mal_trt.training.teacher import Teacher, box_keys

CACHE = "teacher.masks"
KEPT_AT_ONCE = 64  # boxes; a kill loses fewer


def check_student(config: TrainConfig, student: MALNetwork) -> None:
    """InputError for a teacher that is not there or has fewer weights than its student, as far as its file tells."""
    assert config.teacher is not None
    resolve_model(config.teacher, config.teacher_weights) if not config.teacher.is_file() else None
    own, teacher = sum(weight.numel() for weight in student.parameters()), weight_count(config.teacher)
    if teacher is not None and own > teacher:
        raise InputError(
            f"{config.teacher}: has {teacher / 1e6:.2f} million weights, the student {config.arch} {own / 1e6:.2f}; a "
            "student is no larger than its teacher: choose another --arch or --teacher"
        )


def weight_count(model: Path) -> int | None:
    """Weights of one network of a model file; None where it does not tell, as an engine or an INT8 file."""
    try:
        checkpoint = read_start(model)
    except InputError:
        return None
    state = checkpoint.student or checkpoint.teacher
    return None if state is None else sum(tensor.numel() for tensor in state.values())


def cache_path(config: TrainConfig) -> Path:
    """Where a run keeps its teacher's masks."""
    return config.teacher_cache or config.out / CACHE


def open_teacher(config: TrainConfig, fabric: Fabric) -> Teacher:
    """The teacher that a configuration names."""
    assert config.teacher is not None
    return Teacher(config.teacher, fabric.device.type, config.teacher_weights)


def teacher_masks(config: TrainConfig, fabric: Fabric, boxes: TrainingBoxes, show: bool) -> Mapping[int, Prior]:
    """The teacher's soft masks by row: those in the cache, and the missing ones drawn and kept there.

    Of several processes the first one draws; what goes wrong there is raised in all.
    """
    found: Mapping[int, Prior] | MalTrtError = {}
    if fabric.is_global_zero:
        try:
            found = _drawn(config, fabric, boxes, show)
        except MalTrtError as error:
            found = error
    found = fabric.broadcast(found)
    if isinstance(found, MalTrtError):
        raise found
    if not found:
        raise RunError(f"{config.teacher}: drew no mask that can be learnt from; look at a few with mal-trt label")
    return found


def _drawn(config: TrainConfig, fabric: Fabric, boxes: TrainingBoxes, show: bool) -> dict[int, Prior]:
    path = cache_path(config)
    with closing(open_teacher(config, fabric)) as teacher:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path.parent}: cannot be made ({error.strerror})") from None
        keys = box_keys(boxes)
        with closing(MaskCache(path, facts_text(teacher.facts))) as cache:
            missing = cache.missing(keys)
            ready: dict[bytes, Prior | None] = {}
            with Progress("the teacher's masks", len(keys), len(keys) - len(missing), show=show) as progress:
                for rows, masks in teacher.draw(boxes, missing):
                    ready.update((keys[row], mask) for row, mask in zip(rows, masks, strict=True))
                    if len(ready) >= KEPT_AT_ONCE:
                        cache.add(ready)
                        ready = {}
                    progress.advance(len(rows))
            cache.add(ready)
            return cache.read(keys)


@dataclass(frozen=True)
class Sampled:
    """Some of a teacher's masks, drawn to measure. missing: boxes without one in the cache; seconds: for all those."""

    masks: Mapping[int, Prior]
    missing: int
    seconds: float


def sample_masks(config: TrainConfig, fabric: Fabric, boxes: TrainingBoxes, seconds: float) -> Sampled:
    """As many masks as are drawn within a number of seconds; nothing is written."""
    path, keys = cache_path(config), box_keys(boxes)
    with closing(open_teacher(config, fabric)) as teacher:
        missing = list(range(len(keys)))
        if path.exists():
            with closing(MaskCache(path, facts_text(teacher.facts))) as cache:
                missing = cache.missing(keys)
        masks: dict[int, Prior] = {}
        start, done = time.monotonic(), 0
        for rows, drawn in teacher.draw(boxes, missing or [0]):
            done += len(rows)
            masks.update((row, mask) for row, mask in zip(rows, drawn, strict=True) if mask is not None)
            if time.monotonic() - start > seconds:
                break
        each = (time.monotonic() - start) / done
        return Sampled(masks, len(missing), each * len(missing))
