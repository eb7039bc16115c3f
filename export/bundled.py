"""How the bundled models were made, from boxes alone: `python -m mal_trt.export.bundled --data DIR --out DIR`.

DIR holds one folder a data set, each with images-00.tar and train_boxes.json (COCO layout). Three steps: the masks of
an earlier model as priors; a run from ImageNet weights in which they fade away; the export, with the thresholds that
boxes and drawn figures choose. Every stage is skipped where its result exists, and a killed run goes on from its last
checkpoint.

With --ensemble five such runs, which differ in seed, encoder and loss, become teachers: a student, which begins as one
of them, and the edge network learn their mean soft masks where they agree, with objects pasted in front of others
(`training.paste`). In a second round student, edge and that run are the teachers. The models are the means of weights
that belong together: that run and both students, and both edge networks. `bundled` and `bundled-edge` were made that
way, from three teachers instead of five (`benchmarks/training-log.md`).
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from mal_trt.export import export_onnx
from mal_trt.geometry.boxes import SizeClass
from mal_trt.training.config import Precision, TrainConfig, recipe_config
from mal_trt.training.data import Samples
from mal_trt.training.ensemble import compute_targets
from mal_trt.training.loop import CHECKPOINT, sample_rules, train
from mal_trt.training.mask_priors import save_mask_priors
from mal_trt.training.pictures import TrainingBoxes, read_training_boxes
from mal_trt.training.soup import average
from mal_trt.training.threshold import agreement_by_threshold, choose_threshold, figure_iou_by_threshold

THRESHOLD_SAMPLES = 300  # of figures, and of the boxes of each size
PRIORS = "priors.npz"
SAMPLES, STUDENT_SAMPLES = 24_000, 40_000
ROUNDS = 2
# Of the second round's teachers, which learnt masks that were moved already: by their boxes alone it would be .2, and
# what learns from that draws masks that are too large.
SECOND_THRESHOLD = 0.4
MOST_OF_A_PICTURE = 4  # boxes of a picture in all of a run
BEST = 2  # the run below that the student begins as
MIN_AREA = 256.0
EVERY_RUN: dict[str, Any] = {"min_area": MIN_AREA, "precision": "bf16", "preload": True}
# What tells the runs apart. Stopped early: later their masks lose what differs in colour from the rest.
RUNS: tuple[dict[str, Any], ...] = (
    {"seed": 1},
    {"seed": 2, "arch": "mal-lite1"},
    {"seed": 3, "colour": (0.5, 0.0)},
    {"seed": 4, "arch": "mal-lite1", "margin_rate": (0.0, 0.9)},
    {"seed": 5, "colour": (0.0, 0.0), "crf_zeta": 0.3},
)


def run_config(images: tuple[Path, ...], boxes: tuple[Path, ...], out: Path, number: int) -> TrainConfig:
    """The recipe "small" with the masks of an earlier model as priors that fade away."""
    return recipe_config(
        "small",
        **{
            "images": images,
            "boxes": boxes,
            "out": out / f"run{number}",
            "priors": out / PRIORS,
            "prior_weight": (0.6, 0.0),
            **EVERY_RUN,
            **RUNS[number],
        },
    )


def targets_path(out: Path, round: int = 1) -> Path:
    """Where the soft masks of a round's teachers are kept."""
    return out / f"targets{round}.npz"


def student_config(
    images: tuple[Path, ...],
    boxes: tuple[Path, ...],
    out: Path,
    arch: str = "mal-lite0",
    round: int = 1,
    cutouts: Path | None = None,
) -> TrainConfig:
    """From the best run, or the student of the round before, to the teachers' soft masks."""
    name = "student" if arch == "mal-lite0" else arch.removeprefix("mal-")
    begins: dict[str, Any] = {} if round == 1 else {"start_from": out / f"{name}{round - 1}" / CHECKPOINT}
    if round == 1 and name == "student":
        begins = {"start_from": out / f"run{BEST}" / CHECKPOINT}
    return recipe_config(
        "distill",
        images=images,
        boxes=boxes,
        out=out / f"{name}{round}",
        arch=arch,
        targets=targets_path(out, round),
        cutouts=cutouts,
        seed=10 + round,
        **begins,
        **EVERY_RUN,
    )


def sized(config: TrainConfig, rows: TrainingBoxes, samples: int, warmup_steps: int = 100) -> TrainConfig:
    """The run with this many samples, and steps in which the learning rate rises."""
    epoch = Samples(rows, sample_rules(config), 0, 0).epoch_length // config.batch * config.batch
    return replace(config, epochs=samples / epoch, warmup_epochs=warmup_steps * config.batch / epoch)


def sources(data: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The tars of pictures and the documents of boxes of all sets in a folder."""
    sets = sorted(p.parent for p in data.glob("*/train_boxes.json"))
    return tuple(s / "images-00.tar" for s in sets), tuple(s / "train_boxes.json" for s in sets)


def thinned(boxes: tuple[Path, ...], out: Path, seed: int = 7) -> tuple[Path, ...]:
    """Copies of the documents with at most four boxes a picture, drawn at random, so that crowds do not fill a run."""
    copies = []
    for path in boxes:
        copy = out / "boxes" / path.parent.name / path.name
        copies.append(copy)
        if copy.exists():
            continue
        document, rng = json.loads(path.read_text()), random.Random(seed)
        of_picture: dict[Any, list[Any]] = {}
        for record in document["annotations"]:
            if record["bbox"][2] * record["bbox"][3] > MIN_AREA:
                of_picture.setdefault(record["image_id"], []).append(record)
        for records in of_picture.values():
            rng.shuffle(records)
        kept = [record for records in of_picture.values() for record in records[:MOST_OF_A_PICTURE]]
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps({**document, "annotations": kept}))
    return tuple(copies)


def export_bundled(checkpoint: Path, model: Path, boxes: TrainingBoxes, console: Console) -> None:
    """Write `model`: the teacher, weights stored as FP16, refinement by colour, the thresholds by size that boxes
    and drawn figures choose."""
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True)
    figures = figure_iou_by_threshold(model, boxes, THRESHOLD_SAMPLES)
    console.print("IoU of figures: " + _listed(figures))
    thresholds = []
    for size, agreement in zip(SizeClass, agreement_by_threshold(model, boxes, THRESHOLD_SAMPLES), strict=True):
        thresholds.append(choose_threshold(agreement, figures))
        console.print(f"box agreement, {size.name.lower()} boxes: {_listed(agreement)}")
    export_onnx(checkpoint, model, weights="teacher", fp16_weights=True, thresholds=tuple(thresholds), refine="color")
    console.print(f"done: {model}, thresholds {', '.join(f'{t:g}' for t in thresholds)}")


def _listed(values: dict[float, float]) -> str:
    return ", ".join(f"{threshold:g}: {value:.3f}" for threshold, value in values.items())


def main(
    data: Annotated[Path, typer.Option(help="Folder with one folder a data set.")],
    out: Annotated[Path, typer.Option(help="Folder for priors, targets and checkpoints.")],
    prior_model: Annotated[Path, typer.Option(help="Model whose masks the runs begin with.")] = Path("bundled"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="fp32 where bf16 is only emulated.")] = "bf16",
    samples: Annotated[int, typer.Option(help="Of each run from the priors.")] = SAMPLES,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="All five runs, and students of their mean.")] = False,
    student_samples: Annotated[int, typer.Option(help="Of each student.")] = STUDENT_SAMPLES,
    cutouts: Annotated[Path | None, typer.Option(help="Pictures with a transparent ground to paste.")] = None,
    stage: Annotated[
        str, typer.Option(help="One stage alone: priors, run0 ..., targets1, student1, edge1, targets2 ..., export.")
    ] = "",
) -> None:
    """Train and export the bundled model: OUT/mal_lite0.onnx, and with --ensemble OUT/mal_edge.onnx."""
    torch.set_num_threads(threads)
    console = Console(stderr=True)
    images, boxes = sources(data)
    boxes = thinned(boxes, out)
    rows = read_training_boxes(images, boxes, MIN_AREA, 1e10)
    runs = [run_config(images, boxes, out, number) for number in range(len(RUNS))]

    def wanted(name: str) -> bool:
        return stage in ("", name)

    def run(config: TrainConfig, samples: int) -> None:
        if not wanted(config.out.name):
            return
        console.print(config.out.name)
        config = replace(config, device=device, precision=precision, workers=max(1, threads - 1), resume=True)
        if device == "cuda":
            config = replace(config, cudnn_benchmark=True, cudnn_deterministic=False, picture_steps=0)
        train(sized(config, rows, samples), console)

    if wanted("priors") and not (out / PRIORS).exists():
        save_mask_priors(prior_model, rows, out / PRIORS)
    for number, config in enumerate(runs):
        if ensemble or number == BEST:
            run(config, samples)
    lite, edge = [runs[BEST]], list[TrainConfig]()
    teachers = runs
    for round in range(1, ROUNDS + 1 if ensemble else 1):
        targets = targets_path(out, round)
        if wanted(f"targets{round}") and not targets.exists():
            figures = compute_targets(
                [config.out / CHECKPOINT for config in teachers],
                rows,
                targets,
                device,
                threads,
                threshold=None if round == 1 else SECOND_THRESHOLD,
            )
            targets.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
            console.print(f"{targets.name}: {figures}")
        students = [student_config(images, boxes, out, arch, round, cutouts) for arch in ("mal-lite0", "mal-edge")]
        for config in students:
            run(config, student_samples)
        lite, edge = [*lite, students[0]], [*edge, students[1]]
        teachers = [runs[BEST], *students]
    if wanted("export"):
        mean = average([config.out / CHECKPOINT for config in lite], out / "mal_lite0.pth")
        export_bundled(mean, out / "mal_lite0.onnx", rows, console)
        if edge:
            mean = average([config.out / CHECKPOINT for config in edge], out / "mal_edge.pth")
            # What it learnt is refined already, and its threshold moved to one half.
            export_onnx(mean, out / "mal_edge.onnx", weights="teacher", fp16_weights=True)


if __name__ == "__main__":
    typer.run(main)
