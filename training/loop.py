"""The training run: samples in, checkpoints out, resumable at any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console
from torch.utils.data import DataLoader, Sampler

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import could_make_folder, make_folder
from mal_trt.formats.boxes import Boxes
from mal_trt.labelling.summary import most_missing
from mal_trt.training.checkpoint import read_checkpoint
from mal_trt.training.config import TrainConfig
from mal_trt.training.criteria import BoxCriteria, hold_back
from mal_trt.training.cutouts import Cutouts, cut_objects, read_cutouts
from mal_trt.training.data import SampleRules, Samples
from mal_trt.training.devices import make_fabric
from mal_trt.training.ensemble import load_targets
from mal_trt.training.kept_checkpoints import BEST, LAST, Checkpoints
from mal_trt.training.logs import RunLog
from mal_trt.training.pictures import Order, TrainingBoxes, read_training_boxes
from mal_trt.training.prior import Prior, check_rows, load_priors
from mal_trt.training.processes import Others, together
from mal_trt.training.run_lock import alone
from mal_trt.training.start import shaped
from mal_trt.training.teaching import check_student, teacher_masks
from mal_trt.training.trainer import BadLoss, Trainer
from mal_trt.training.validation import Validation

CHECKPOINT = LAST
SHOWN = 4


def train(config: TrainConfig, console: Console | None = None, show: bool = True) -> Path:
    """Train and return the checkpoint's path, `out/last.pth`, or `out/best.pth` of a run with patience; beside it the
    logs and the best checkpoints. show: False says nothing.

    A ViT that starts from a checkpoint takes its layout and depth over, unless the configuration says them.

    Raises InputError for unusable boxes or options, RunError if the loss stops being a number or the final
    checkpoint cannot be written. With several devices this starts the running script again for each of the others.
    """
    with launched(config, console, show) as (fabric, console, others), ExitStack() as held:
        # Before another run's last.pth is read; a folder is not made before everything is known to be good.
        if early := fabric.is_global_zero and config.out.is_dir():
            held.enter_context(alone(config.out))
        prepared = prepare_run(config, fabric, console)
        if config.teacher is not None:
            boxes = prepared.boxes
            prepared = replace(prepared, priors=teacher_masks(config, fabric, boxes, show=not console.quiet))
        make_folder(config.out)
        if fabric.is_global_zero and not early:
            held.enter_context(alone(config.out))
        return _train(prepared, console, others)


@contextmanager
def launched(config: TrainConfig, console: Console | None, show: bool) -> Iterator[tuple[Fabric, Console, Others]]:
    """The processes of a run, where they speak, and those that this one started. InputError if `out` holds another
    run."""
    checkpoint = config.out / CHECKPOINT
    if checkpoint.exists() and not config.resume:
        raise InputError(f"{checkpoint}: exists; continue it with --resume or choose another --out")
    config, taken = shaped(config)
    fabric = make_fabric(config)
    fabric.launch()
    if console is None or fabric.global_rank:
        console = Console(stderr=True, quiet=fabric.global_rank > 0 or not show)
    if taken is not None:
        console.print(taken, highlight=False, markup=False, soft_wrap=True)
    with together(fabric) as others:
        yield fabric, console, others


@dataclass(frozen=True)
class PreparedRun:
    """A run before its first step. boxes: those it trains on; held: how many others it judges itself by. judge: what
    looks at its weights now and then, if any. given: the cut-outs of a folder."""

    boxes: TrainingBoxes
    held: int
    judge: Validation | BoxCriteria | None
    trainer: Trainer
    rules: SampleRules
    priors: Mapping[int, Prior]
    given: Sequence[np.ndarray] = ()

    def loader(self) -> DataLoader[Any]:
        """The batches of all steps that are left, for this process."""
        trainer, fabric, config = self.trainer, self.trainer.fabric, self.trainer.config
        per_step = trainer.boxes_per_step
        last, cutouts = trainer.total_steps * per_step, _cutouts(config, self.given, self.boxes, self.priors)
        samples = Samples(self.boxes, self.rules, 0, last, self.priors, config.preload, cutouts)
        numbers = Numbers(
            config.batch, fabric.global_rank, fabric.world_size, trainer.step, trainer.total_steps, per_step
        )
        return DataLoader(
            samples, batch_sampler=numbers, num_workers=config.workers, pin_memory=fabric.device.type == "cuda"
        )


def prepare_run(config: TrainConfig, fabric: Fabric, console: Console) -> PreparedRun:
    """Boxes read, weights in their places; nothing is written. InputError for what cannot be used."""
    could_make_folder(config.out)
    documents = [Boxes(path, config.boxes_format, config.split, config.rescale) for path in config.boxes]
    images = config.images or tuple(document.home() for document in documents)
    boxes = read_training_boxes(images, documents, config.min_area, config.max_area)
    if boxes.skipped:
        left_out = ", ".join(f"{count} {reason}" for reason, count in boxes.skipped.items())
        console.print(f"left out: {left_out}", highlight=False, soft_wrap=True)
        total = len(boxes) + sum(boxes.skipped.values())
        if warning := most_missing(total, boxes.skipped, "are NOT trained on"):
            console.print(warning, highlight=False, markup=False, soft_wrap=True)
    judge: Validation | BoxCriteria | None = Validation(config) if config.val_boxes is not None else None
    priors, held_back = _priors(config, len(boxes)), 0
    given = () if config.cutouts is None else tuple(read_cutouts(config.cutouts))
    if config.patience is not None and judge is None:
        kept, held = hold_back(boxes)
        priors = {new: priors[old] for new, old in enumerate(kept.tolist()) if old in priors}
        boxes, judged, held_back = boxes.some(kept), boxes.some(held), len(held)
        judge = BoxCriteria(config, boxes, judged)
    rules = sample_rules(config, fabric.world_size)
    epoch_length = Samples(boxes, rules, 0, 0).epoch_length
    per_step = config.batch * config.accumulate * fabric.world_size
    steps_per_epoch = epoch_length // per_step
    if not steps_per_epoch:
        raise InputError(f"{epoch_length} boxes do not fill one step of {per_step}; lower --batch")
    trainer = Trainer(config, steps_per_epoch, fabric)
    if not trainer.total_steps:
        raise InputError(f"epochs {config.epochs:g}: no step (an epoch has {steps_per_epoch}); raise --epochs")
    trainer.boxes = boxes.digest()
    last = config.out / CHECKPOINT
    if last.exists():
        trainer.restore(last)
    elif config.resume_from is not None:
        trainer.restore(config.resume_from)
    elif config.start_from is not None:
        trainer.start(config.start_from)
    if config.teacher is not None:
        check_student(config, trainer.student)
    return PreparedRun(boxes, held_back, judge, trainer, rules, priors, given)


def _train(prepared: PreparedRun, console: Console, others: Others) -> Path:
    trainer, boxes = prepared.trainer, prepared.boxes
    config, fabric = trainer.config, trainer.fabric
    first = fabric.is_global_zero
    loader = prepared.loader()
    checkpoints = Checkpoints(trainer, console)
    with RunLog(trainer, console) if first else _Silent() as log:
        try:
            _steps(trainer, loader, prepared.judge, checkpoints if first else None, log)
        except BadLoss as error:
            raise _explained(error, config, boxes, fabric.global_rank) from None
    if first:
        others.watched = False  # nothing waits for them any more
        checkpoints.last(final=True)
        _say_damaged(log.damaged, boxes, console)
        if config.patience is not None:
            _say_best(trainer, console)
    return config.out / (CHECKPOINT if config.patience is None else BEST)


def sample_rules(config: TrainConfig, processes: int = 1) -> SampleRules:
    """What a run's options say of its samples."""
    # Crops of one size on all processes at once, so that none waits for one with larger ones.
    one_size = None if config.sizes is None else config.batch * processes
    order = Order(config.boxes_per_picture, config.balance, config.together, one_size)
    return SampleRules(
        config.crop_size,
        config.seed,
        config.margin_rate,
        order,
        config.figures,
        config.jitter,
        config.strong,
        config.sizes,
        config.paste,
    )


def _priors(config: TrainConfig, boxes: int) -> Mapping[int, Prior]:
    """Masks of single rows: an ensemble's, those of an earlier model, or none."""
    if config.targets is not None and config.priors is not None:
        raise InputError("targets and priors: give one of them")
    if config.teacher is not None and config.recipe != "distill":
        raise InputError(f"recipe {config.recipe}: has no teacher to learn from; use distill")
    if config.recipe == "distill" and (config.targets is None) == (config.teacher is None):
        raise InputError("recipe distill learns the masks of a teacher or those of targets: give one of them")
    if config.recipe == "distill" and config.priors is not None:
        raise InputError("priors are for the recipe small; distill learns the masks of a teacher")
    if config.paste and not _soft(config):
        raise InputError("paste needs soft masks to paste into: those of a teacher (recipe distill) or of targets")
    if config.cutouts is not None and not config.paste and not config.figures:
        raise InputError("cutouts are pasted by nothing: give paste or figures")
    path = config.priors if config.targets is None else config.targets
    if path is None:
        return {}
    masks = load_priors(path) if config.targets is None else load_targets(path)
    check_rows(path, masks, boxes)
    return masks


def _cutouts(
    config: TrainConfig, given: Sequence[np.ndarray], boxes: TrainingBoxes, priors: Mapping[int, Prior]
) -> Cutouts | None:
    """What is pasted; of masks only soft ones are trusted enough to cut along."""
    if not config.paste and not given:
        return None
    return Cutouts.of(given, cut_objects(boxes, priors) if _soft(config) else ())


def _soft(config: TrainConfig) -> bool:
    return config.teacher is not None or config.targets is not None


def _steps(
    trainer: Trainer,
    loader: Any,
    judge: Validation | BoxCriteria | None,
    checkpoints: Checkpoints | None,
    log: Any,
) -> None:
    """All steps that are left; checkpoints is None on all processes but the first."""
    every = validation_steps(trainer)
    if judge is not None and trainer.config.patience is not None and trainer.stopping.best is None:
        _judge(trainer, judge, checkpoints, log)
    batches = iter(loader)
    while trainer.step < trainer.total_steps and not trainer.stopping.over:
        micro = [next(batches) for _ in range(trainer.config.accumulate)]
        log.step(trainer.train_step(*micro), *micro)
        if judge is not None and (trainer.step % every == 0 or trainer.step == trainer.total_steps):
            _judge(trainer, judge, checkpoints, log)
        if checkpoints is not None:
            checkpoints.after_step()


def validation_steps(trainer: Trainer) -> int:
    """Steps from one validation to the next."""
    return trainer.config.validate_steps or max(1, round(trainer.config.validate_epochs * trainer.steps_per_epoch))


def _judge(trainer: Trainer, judge: Validation | BoxCriteria, checkpoints: Checkpoints | None, log: Any) -> None:
    """Figures of the present weights, and which of the kept checkpoints they change."""
    figures = trainer.fabric.broadcast(judge.run(trainer))  # of several processes the first one decides
    drawn = isinstance(judge, Validation)
    better = trainer.stopping.judge(figures["miou" if drawn else "fit"], trainer.step)
    if checkpoints is None:
        return
    if drawn:
        log.validated(figures, checkpoints.best(figures["miou"]))
    else:
        log.judged(figures, better)
    if better and trainer.config.patience is not None:
        checkpoints.chosen()


@dataclass(frozen=True)
class Numbers(Sampler[list[int]]):
    """The sample numbers of one process's batches, from step `first` on: a step's batches lie side by side."""

    batch: int
    rank: int
    processes: int
    first: int
    last: int
    per_step: int

    def __iter__(self) -> Iterator[list[int]]:
        apart = self.batch * self.processes
        for start in range(self.first * self.per_step, self.last * self.per_step, apart):
            begin = start + self.rank * self.batch
            yield list(range(begin, begin + self.batch))

    def __len__(self) -> int:
        return (self.last - self.first) * self.per_step // (self.batch * self.processes)


class _Silent:
    """The log of all processes but the first."""

    damaged: frozenset[int] = frozenset()

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def step(self, *_: object) -> None:
        pass


def _explained(error: BadLoss, config: TrainConfig, boxes: TrainingBoxes, rank: int) -> RunError:
    """Leave the batch's annotations in bad-batch.json (each process its own) and name the file."""
    path = config.out / (f"bad-batch-{rank}.json" if rank else "bad-batch.json")
    if error.rows:
        places = [
            {"document": boxes.ids[r][0], "id": boxes.ids[r][1], "picture": boxes.pictures[boxes.picture[r]].name}
            for r in error.rows
            if r >= 0
        ]
        losses = {name: repr(value) for name, value in error.losses.items()}  # JSON has no NaN
        path.write_text(json.dumps({"step": error.step, "losses": losses, "annotations": places}, indent=1) + "\n")
    else:
        path = config.out / "bad-batch-*.json"
    again, last = "start again", config.out / CHECKPOINT
    if last.is_file():  # --resume refuses another rate or precision
        again = f"go on from its weights with --from {last} and" if _finite(last) else "start again with"
        again += " another --out"
    return RunError(f"{error}; its boxes are in {path}; lower --lr or use --precision fp32, and {again}")


def _finite(path: Path) -> bool:
    """Whether a checkpoint was written before its weights were lost too."""
    checkpoint = read_checkpoint(path)
    found = [weights for part in ("student", "teacher") if (weights := checkpoint.weights(part)) is not None]
    return all(bool(tensor.isfinite().all()) for weights in found for tensor in weights.values())


def _say_damaged(rows: set[int] | frozenset[int], boxes: TrainingBoxes, console: Console) -> None:
    if rows:
        names = sorted({boxes.pictures[boxes.picture[row]].name for row in rows})
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        text = f"skipped: {len(rows)} boxes in {len(names)} pictures that cannot be read ({shown})"
        console.print(text, highlight=False, soft_wrap=True)


def _say_best(trainer: Trainer, console: Console) -> None:
    """Which weights best.pth holds."""
    stopping = trainer.stopping
    early = ", stopped early" if trainer.step < trainer.total_steps else ""
    where = f"those of step {stopping.step}" if stopping.step else "those the run started from: no step was better"
    console.print(
        f"{trainer.step} step{'s' * (trainer.step != 1)}{early}; {BEST} holds the best weights, {where}",
        highlight=False,
        soft_wrap=True,
    )
