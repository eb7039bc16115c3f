"""A short training after pruning: the dense network, which is what was pruned, teaches the one that is left.

It is a run of `training.loop` like any other, in a folder beside the result, from which a killed one goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mal_trt.calibration.sample import Spot
from mal_trt.export.prune_settings import PruneSettings
from mal_trt.formats.boxes import Boxes, Source, as_boxes
from mal_trt.formats.images import open_images
from mal_trt.training.config import Precision, TrainConfig, recipe_config
from mal_trt.training.data import Samples
from mal_trt.training.loop import sample_rules, train
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.trainer import network_options

START, DENSE = "pruned.pth", "dense.pth"
WARMUP = 0.05  # of the run
MIN_AREA = 256.0
VALUES = {
    "batch": 16,
    "min_lr_rate": 0.02,
    "weight_decay": 0.0,
    "clip": 1.0,
    "teacher_momentum": 0.9,
    "teacher_momentum_end": None,
    "boxes_per_picture": 3,
    "figures": 0.0,
    "frozen_stages": (-1,),
    "min_area": MIN_AREA,
    "picture_steps": 0,
    "patience": None,
}


def recover(
    folder: Path,
    sources: Sequence[Source],
    held: Sequence[Spot],
    settings: PruneSettings,
    console: Console,
    show: bool,
) -> Path:
    """Train `pruned.pth` of the folder with its `dense.pth` as the teacher; the checkpoint with the result.

    held: boxes that the result will be checked on; nothing of their pictures is trained on.
    """
    images, boxes = _without(folder, sources, held)
    config = recovery_config(folder, images, boxes, settings)
    rows = read_training_boxes(config.images, config.boxes, MIN_AREA, config.max_area)
    batch = min(config.batch, Samples(rows, sample_rules(config), 0, 0).epoch_length)
    epoch = Samples(rows, sample_rules(config), 0, 0).epoch_length // batch
    epochs = max(1, settings.recover // batch) / epoch
    config = replace(config, batch=batch, epochs=epochs, warmup_epochs=WARMUP * epochs)
    return train(config, console, show)


def recovery_config(
    folder: Path, images: tuple[str | Path, ...], boxes: tuple[Path, ...], settings: PruneSettings
) -> TrainConfig:
    """The run's options but for its length."""
    start = folder / START
    precision: Precision = settings.precision  # type: ignore[assignment]
    own = {
        "images": images,
        "boxes": boxes,
        "out": folder,
        "start_from": start,
        "dense": folder / DENSE,
        "lr": settings.lr,
        "precision": precision,
        "device": settings.device,
        "preload": settings.preload,
        "workers": 0 if settings.preload else TrainConfig.workers,
        "resume": True,
    }
    options = network_options(start)
    if str(options["arch"]).startswith("mal-"):
        own |= {"encoder_lr": 1.0, "encoder_weight_decay": None}
    return recipe_config("small", **{**options, **VALUES, **own})


def _without(
    folder: Path, sources: Sequence[Source], held: Sequence[Spot]
) -> tuple[tuple[str | Path, ...], tuple[Path, ...]]:
    """The pictures, and copies of the boxes in the folder that lack all of the pictures that are held back."""
    unseen = {(str(spot.images), spot.record.get("image_id")) for spot in held}
    places, documents = [], []
    for number, (images, given) in enumerate(sources):
        boxes: Boxes = as_boxes(given)
        place = images or boxes.home()
        content = boxes.document(open_images(place))
        kept = [record for record in content["annotations"] if (str(place), record.get("image_id")) not in unseen]
        path = folder / f"boxes{number}.json"
        path.write_text(json.dumps({**content, "annotations": kept}))
        places.append(place)
        documents.append(path)
    return tuple(places), tuple(documents)
