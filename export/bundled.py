"""How the bundled model was made, from boxes alone: `python -m mal_trt.export.bundled --data DIR --out DIR`.

DIR holds one folder a data set, each with images-00.tar and train_boxes.json (COCO layout). Three steps: teachers,
short runs from ImageNet weights that differ in seed, encoder and loss; their mean soft masks as targets, where they
agree; a student from ImageNet weights that learns them. Every stage is skipped where its result exists,
and a killed stage goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from mal_trt.export import export_onnx
from mal_trt.training.config import TrainConfig, recipe_config
from mal_trt.training.data import Samples
from mal_trt.training.ensemble import compute_targets
from mal_trt.training.loop import CHECKPOINT, sample_rules, train
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.threshold import agreement_by_threshold, choose_threshold

THRESHOLD_SAMPLES = 600
PRIORS, TARGETS = "priors.npz", "targets.npz"
TEACHER_SAMPLES, STUDENT_SAMPLES = 25_000, 300_000
MIN_AREA = 256.0
# What tells the teachers apart. Stopped early: later their masks lose what differs in colour from the rest.
TEACHERS: tuple[dict[str, Any], ...] = (
    {"seed": 1},
    {"seed": 2, "arch": "mal-lite1"},
    {"seed": 3, "colour": (0.5, 0.0)},
    {"seed": 4, "arch": "mal-lite1", "margin_rate": (0.0, 0.9)},
    {"seed": 5, "colour": (0.0, 0.0), "crf_zeta": 0.3},
)


def teacher_config(images: tuple[Path, ...], boxes: tuple[Path, ...], out: Path, number: int) -> TrainConfig:
    """The recipe "small" with the masks of an earlier model as priors that fade away."""
    return recipe_config(
        "small",
        **{
            "images": images,
            "boxes": boxes,
            "out": out / f"teacher{number}",
            "priors": out / PRIORS,
            "prior_weight": (0.6, 0.0),
            "min_area": MIN_AREA,
            "precision": "bf16",
            "preload": True,
            **TEACHERS[number],
        },
    )


def student_config(images: tuple[Path, ...], boxes: tuple[Path, ...], out: Path) -> TrainConfig:
    """From ImageNet weights to the ensemble's soft masks, with more augmentation and no colour term."""
    return recipe_config(
        "small",
        images=images,
        boxes=boxes,
        out=out / "student",
        targets=out / TARGETS,
        colour=(0.0, 0.0),
        jitter=0.1,
        strong=True,
        min_area=MIN_AREA,
        precision="bf16",
        preload=True,
        teacher_momentum=0.99,
        teacher_momentum_end=0.998,
        seed=11,
    )


def sized(config: TrainConfig, rows: TrainingBoxes, samples: int, warmup_steps: int = 100) -> TrainConfig:
    """The run with so many samples and steps of rising rate."""
    epoch = Samples(rows, sample_rules(config), 0, 0).epoch_length // config.batch * config.batch
    return replace(config, epochs=samples / epoch, warmup_epochs=warmup_steps * config.batch / epoch)


def sources(data: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The tars of pictures and the documents of boxes of all sets in a folder."""
    sets = sorted(p.parent for p in data.glob("*/train_boxes.json"))
    return tuple(s / "images-00.tar" for s in sets), tuple(s / "train_boxes.json" for s in sets)


def make_targets(
    checkpoints: list[Path], rows: TrainingBoxes, path: Path, device: str, workers: int, console: Console
) -> None:
    """Soft masks of the checkpoints at `path`, with the figures beside them (.json)."""
    figures = compute_targets(checkpoints, rows, path, device, workers)
    path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"{path.name}: {figures}")


def export_bundled(checkpoint: Path, model: Path, boxes: TrainingBoxes, console: Console) -> None:
    """Write `model`: the teacher, weights stored as FP16, refinement by colour, the threshold that the boxes choose."""
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True)
    agreement = agreement_by_threshold(model, boxes, THRESHOLD_SAMPLES)
    threshold = choose_threshold(agreement)
    console.print("box agreement: " + ", ".join(f"{t:g}: {a:.3f}" for t, a in agreement.items()))
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True, thresholds=(threshold,), refine="color")
    console.print(f"done: {model}, threshold {threshold:g}")


def main(
    data: Annotated[Path, typer.Option(help="Folder with one folder a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for targets and checkpoints.")],
    prior_model: Annotated[Path, typer.Option(help="Model whose masks the teachers begin with.")] = Path("bundled"),
    threads: Annotated[int, typer.Option(help="CPU threads, and processes that cut crops.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    stage: Annotated[str, typer.Option(help="One stage alone: priors, teacher0 ..., targets, student, export.")] = "",
    teacher_samples: Annotated[int, typer.Option(help="Of each teacher.")] = TEACHER_SAMPLES,
    student_samples: Annotated[int, typer.Option(help="Of the student.")] = STUDENT_SAMPLES,
    student_batch: Annotated[int, typer.Option(help="Boxes of a step; the rate follows its square root.")] = 32,
) -> None:
    """Train and export the bundled model: OUT/mal_lite0.onnx."""
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    images, boxes = sources(data)
    out.mkdir(parents=True, exist_ok=True)
    rows = read_training_boxes(images, boxes, MIN_AREA, 1e10)
    teachers = [teacher_config(images, boxes, out, number) for number in range(len(TEACHERS))]
    student = student_config(images, boxes, out)
    grown = student_batch / student.batch
    student = replace(student, batch=student_batch, lr=student.lr / grown**0.5)

    def wanted(name: str) -> bool:
        return stage in ("", name)

    def run(config: TrainConfig, samples: int) -> None:
        console.print(config.out.name)
        config = replace(config, device=device, workers=max(1, threads - 1), resume=True)
        if device == "cuda":
            config = replace(config, cudnn_benchmark=True, cudnn_deterministic=False, picture_steps=0)
        train(sized(config, rows, samples), console)

    if wanted("priors") and not (out / PRIORS).exists():
        make_targets([prior_model], rows, out / PRIORS, device, threads, console)
    for number, teacher in enumerate(teachers):
        if wanted(f"teacher{number}"):
            run(teacher, teacher_samples)
    if wanted("targets") and not (out / TARGETS).exists():
        make_targets([t.out / CHECKPOINT for t in teachers], rows, out / TARGETS, device, threads, console)
    if wanted("student"):
        run(student, student_samples)
    if wanted("export"):
        export_bundled(student.out / CHECKPOINT, out / "mal_lite0.onnx", rows, console)


if __name__ == "__main__":
    typer.run(main)
