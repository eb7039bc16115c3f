"""The training loop: samples in, checkpoints out, resumable at any checkpoint."""

from __future__ import annotations

import csv
import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mal_trt.errors import InputError, RunError
from mal_trt.training.augment import normalise
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.colour import ColourBatch, ColourLoss
from mal_trt.training.config import TrainConfig
from mal_trt.training.data import Sample, SampleRules, Samples
from mal_trt.training.losses import LossTerms, MalLoss
from mal_trt.training.network import NetworkConfig, build_network
from mal_trt.training.pictures import read_training_boxes
from mal_trt.training.prior import load_priors
from mal_trt.training.schedule import CosineSchedule, update_teacher

CHECKPOINT = "last.pth"
# Share of the run over which the colour target gains its full weight.
TARGET_RAMP = 0.1
GRADIENT_CLIP = 1.0


class Trainer:
    """Student, teacher, optimiser and schedule of one run; `step` is the number of steps already done."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int) -> None:
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.device = _device(config.device)
        torch.manual_seed(config.seed)
        self.network_config = network_config(config)
        self.student = build_network(self.network_config).to(self.device)
        self.teacher = build_network(self.network_config).to(self.device)
        self.step = 0
        base = config.lr * config.batch
        self.schedule = CosineSchedule(base, base * config.min_lr_rate, config.epochs, config.warmup_epochs)
        self.optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=base, betas=config.betas, weight_decay=config.weight_decay
        )
        if config.recipe == "colour":
            # From scratch the two networks share no features, so the teacher starts as the student's copy.
            self.teacher.load_state_dict(self.student.state_dict())
        self.mal_loss, self.colour_loss = MalLoss(), ColourLoss()

    @property
    def total_steps(self) -> int:
        return int(self.steps_per_epoch * self.config.epochs)

    def train_step(self, batch: Sample) -> LossTerms:
        """One optimiser step and teacher update on a collated batch; losses of the batch before it."""
        epoch, inside = divmod(self.step, self.steps_per_epoch)
        student_crop, crop = (batch[k].to(self.device, non_blocking=True) for k in ("student", "teacher"))
        mask = batch["mask"].to(self.device, non_blocking=True)[:, None].float()
        area = batch["area"].to(self.device)
        image = normalise(student_crop)
        with self._autocast():
            student_logits = self.student(image, area)
            with torch.no_grad():
                teacher_logits = self.teacher(normalise(crop), area)
        if self.config.recipe == "tao":
            terms = self.mal_loss(student_logits, teacher_logits, image, mask, epoch, inside)
        else:
            prior = batch["prior"].to(self.device)[:, None].float() / 255
            samples = ColourBatch(mask, batch["exact"].to(self.device), prior, batch["has_prior"].to(self.device))
            rgb = crop.permute(0, 3, 1, 2).float() / 255
            progress = self.step / self.total_steps
            terms = self.colour_loss(student_logits, teacher_logits, rgb, samples, self._ramp(), progress)
        if not torch.isfinite(terms.total):
            raise RunError(
                f"the loss became {terms.total.item()} at step {self.step}; lower --lr or train without --amp"
            )
        self.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        if self.config.recipe == "colour":
            nn.utils.clip_grad_norm_(self.student.parameters(), GRADIENT_CLIP)
            self._set_lr(self.schedule((self.step + 1) / self.steps_per_epoch))
        self.optimizer.step()
        if self.config.recipe == "tao":
            # Published order: the rate is set after the step, so step 0 runs at the base rate (with zero loss).
            self._set_lr(self.schedule(self.step / self.steps_per_epoch))
        update_teacher(self.teacher, self.student, self.config.teacher_momentum)
        self.step += 1
        return terms

    def _ramp(self) -> float:
        """Weight of the colour target: rises from 0 to 1 at the start of the run."""
        return min(1.0, self.step / (TARGET_RAMP * self.total_steps))

    def _set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.config.amp:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def save(self, path: Path) -> None:
        """Checkpoint that `export` reads and `--resume` continues."""
        save_checkpoint(
            path,
            self.network_config,
            student=self.student.state_dict(),
            teacher=self.teacher.state_dict(),
            meta={"step": self.step, "run": _plain(self.config)},
            trainer={"optimizer": self.optimizer.state_dict(), "step": self.step},
        )

    def restore(self, path: Path) -> None:
        """Continue from `save`; the run must be the same one."""
        checkpoint = read_checkpoint(path)
        saved, now = checkpoint.meta.get("run"), _plain(self.config)
        if checkpoint.trainer is None or saved is None:
            raise InputError(f"{path}: holds no training state to resume; use it with --from")
        differing = sorted(k for k in now if saved.get(k) != now[k])
        if differing:
            raise InputError(f"{path}: was trained with another {', '.join(differing)}; resume with the same options")
        load_into(self.student, checkpoint, "student")
        load_into(self.teacher, checkpoint, "teacher")
        self.optimizer.load_state_dict(checkpoint.trainer["optimizer"])
        self.step = int(checkpoint.trainer["step"])


def network_config(config: TrainConfig) -> NetworkConfig:
    """The network that a run's options name."""
    return NetworkConfig(
        arch=config.arch,
        layout=config.layout or "patch",
        depth=config.depth,
        crop_size=config.crop_size,
        mask_head_hidden_channel=config.head_width,
        mask_head_out_channel=config.head_width,
        adjust_scale=config.adjust_scale,
    )


def train(config: TrainConfig, console: Console | None = None) -> Path:
    """Train and return the checkpoint's path, `out/last.pth`; `out/log.csv` holds the losses.

    Raises InputError for unusable boxes or options, RunError if the loss stops being a number.
    """
    console = console or Console(stderr=True)
    checkpoint = config.out / CHECKPOINT
    if checkpoint.exists() and not config.resume:
        raise InputError(f"{checkpoint}: exists; continue it with --resume or choose another --out")
    boxes = read_training_boxes(config.images, config.boxes, config.min_area, config.max_area)
    if boxes.skipped:
        console.print("left out: " + ", ".join(f"{count} {reason}" for reason, count in boxes.skipped.items()))
    rules = SampleRules(config.crop_size, config.seed, config.margin_rate, config.boxes_per_picture, config.figures)
    epoch_length = Samples(boxes, rules, 0, 0).epoch_length
    steps_per_epoch = epoch_length // config.batch
    if not steps_per_epoch:
        raise InputError(f"{epoch_length} boxes do not fill one batch of {config.batch}; lower --batch")
    trainer = Trainer(config, steps_per_epoch)
    if checkpoint.exists():
        trainer.restore(checkpoint)
    elif config.start_from is not None:
        start = read_checkpoint(config.start_from)
        for network, part in ((trainer.student, "student"), (trainer.teacher, "teacher")):
            load_into(network, start, part)
    _make_folder(config.out)
    first, last = trainer.step * config.batch, trainer.total_steps * config.batch
    priors = load_priors(config.priors) if config.priors else None
    samples = Samples(boxes, rules, first, last, priors, config.preload)
    loader = DataLoader(samples, config.batch, num_workers=config.workers, pin_memory=trainer.device.type == "cuda")
    last_saved = time.monotonic()
    with _Log(config.out / "log.csv", trainer, console) as log:
        for batch in loader:
            log.add(trainer.train_step(batch))
            if time.monotonic() - last_saved > config.checkpoint_minutes * 60:
                trainer.save(checkpoint)
                last_saved = time.monotonic()
    trainer.save(checkpoint)
    return checkpoint


class _Log:
    """Progress bar on screen and one CSV row every `every` steps."""

    every = 20

    def __init__(self, path: Path, trainer: Trainer, console: Console) -> None:
        self.trainer, self.path = trainer, path
        text = "{task.fields[loss]}  {task.completed}/{task.total} steps"
        columns = (BarColumn(), TextColumn(text), TimeElapsedColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console)
        self.task = self.progress.add_task("train", total=trainer.total_steps, completed=trainer.step, loss="")
        self.terms: list[tuple[Tensor, Tensor, Tensor]] = []
        self.started = time.monotonic()

    def __enter__(self) -> _Log:
        self._trim()
        self.file = self.path.open("a", newline="")
        self.rows = csv.writer(self.file)
        if not self.path.stat().st_size:
            self.rows.writerow(("step", "total", "mil", "crf", "lr", "boxes_per_s"))
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
        self.file.close()

    def add(self, terms: LossTerms) -> None:
        self.terms.append((terms.total.detach(), terms.mil.detach(), terms.crf.detach()))
        if len(self.terms) < self.every:
            return
        total, mil, crf = (float(torch.stack(x).mean()) for x in zip(*self.terms, strict=True))
        now = time.monotonic()
        rate = self.every * self.trainer.config.batch / (now - self.started)
        lr = self.trainer.optimizer.param_groups[0]["lr"]
        row = (self.trainer.step, f"{total:.5f}", f"{mil:.5f}", f"{crf:.5f}", f"{lr:.3e}", f"{rate:.1f}")
        self.rows.writerow(row)
        self.file.flush()
        self.progress.update(self.task, completed=self.trainer.step, loss=f"loss {total:.3f}  {rate:.0f} boxes/s")
        self.terms, self.started = [], now

    def _trim(self) -> None:
        """After a kill the log may run ahead of the checkpoint: drop the rows that will be written again."""
        if not self.path.exists():
            return
        header, *rows = self.path.read_text().splitlines() or [""]
        kept = [r for r in rows if int(r.split(",")[0]) <= self.trainer.step]
        self.path.write_text("\n".join([header, *kept, ""]))


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The options that make a run what it is, as JSON values."""
    free = ("resume", "workers", "preload", "checkpoint_minutes", "device", "out")
    values = {k: v for k, v in asdict(config).items() if k not in free}
    return dict(json.loads(json.dumps(values, default=str)))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    return torch.device(name)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror})") from None
