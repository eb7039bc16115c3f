"""What a run tells: a CSV row and TensorBoard scalars every few steps, pictures now and then, progress on screen."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from mal_trt.base.errors import RunError, one_line
from mal_trt.base.outputs import write_whole
from mal_trt.training.data import Sample
from mal_trt.training.losses import LossTerms, resize
from mal_trt.training.trainer import Trainer

HEADER = ("step", "total", "mil", "crf", "lr", "boxes_per_s")
# Seconds between lines where no terminal shows a bar.
LINE_SECONDS = 60.0
SIZES = ("miou", "miou_small", "miou_medium", "miou_large", "miou_instance", "boundary_iou")
PICTURES = 8
PICTURE_SIDE = 160


class RunLog:
    """Files log.csv, val.csv, fit.csv and tensorboard/ of a run, and its progress on the console."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self.trainer, self.console, self.out = trainer, console, trainer.config.out
        text = "{task.fields[loss]}  {task.completed}/{task.total} steps"
        columns = (BarColumn(), TextColumn(text), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.progress.add_task("train", total=trainer.total_steps, completed=trainer.step, loss="")
        self.terms: list[Tensor] = []
        self.began, self.first = time.monotonic(), trainer.step
        self.rated = self.said = self.began
        self.damaged: set[int] = set()
        self.failed = False
        self.board: SummaryWriter | None = None

    def __enter__(self) -> RunLog:
        for name in ("log.csv", "val.csv", "fit.csv"):
            self._try(partial(_trim, self.out / name, self.trainer.step))
        self._try(self._open_board)
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
        if self.board is not None:
            self._try(self.board.close)

    def _open_board(self) -> None:
        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=self.trainer.step + 1)

    def step(self, terms: LossTerms, *batches: Sample) -> None:
        """After every step."""
        config, step = self.trainer.config, self.trainer.step
        self.terms.append(torch.stack([terms.total, terms.mil, terms.crf]).detach())
        for batch in batches:
            self.damaged.update(row for row in _ints(batch["damaged"]) if row >= 0)
        if config.picture_steps and step % config.picture_steps == 0 and self.trainer.seen is not None:
            self._show(lambda board: board.add_image("samples", picture_grid(*self._seen()), step))
        if len(self.terms) >= config.log_steps:
            self._row()

    def _row(self) -> None:
        total, mil, crf = torch.stack(self.terms).mean(0).tolist()
        now, step = time.monotonic(), self.trainer.step
        rate = len(self.terms) * self.trainer.boxes_per_step / (now - self.rated)
        self.terms, self.rated = [], now
        values = dict(zip(HEADER, (step, total, mil, crf, self.trainer.lr, rate), strict=True))
        row = (step, f"{total:.5f}", f"{mil:.5f}", f"{crf:.5f}", f"{self.trainer.lr:.3e}", f"{rate:.1f}")
        self._try(lambda: _append(self.out / "log.csv", HEADER, row))
        for name in HEADER[1:]:
            self._show(lambda board, name=name: board.add_scalar(f"train/{name}", values[name], step))
        loss = f"loss {total:.3f} (box {mil:.3f}, self {crf:.3f})  {rate:.1f} boxes/s"
        self.progress.update(self.task, completed=step, loss=loss)
        if not self.console.is_terminal and now - self.said >= LINE_SECONDS:
            self.said = now
            left = (self.trainer.total_steps - step) * (now - self.began) / max(1, step - self.first)
            self.console.print(
                f"step {step}/{self.trainer.total_steps}: {loss}, {left / 60:.0f} min left",
                highlight=False,
                soft_wrap=True,
            )

    def validated(self, figures: dict[str, Any], best: bool) -> None:
        """After a validation."""
        step = self.trainer.step
        row = (step, *("" if figures[name] is None else f"{figures[name]:.5f}" for name in SIZES))
        self._try(lambda: _append(self.out / "val.csv", ("step", *SIZES), row))
        for name in SIZES:
            if figures[name] is not None:
                self._show(lambda board, name=name: board.add_scalar(f"val/{name}", figures[name], step))
        shown = ", ".join(f"{n.removeprefix('miou_')} {figures[n]:.3f}" for n in SIZES[1:4] if figures[n] is not None)
        text = f"step {step}: mIoU {figures['miou']:.4f} ({shown}) on {figures['count']} boxes"
        self.console.print(text + (", the best so far" if best else ""), highlight=False, soft_wrap=True)
        self.rated = time.monotonic()

    def judged(self, figures: dict[str, Any], best: bool) -> None:
        """After figures from boxes alone; see `training.criteria`."""
        step, names = self.trainer.step, ("fit", "box_agreement", "figure_iou")
        row = (step, *(f"{figures[name]:.5f}" for name in names))
        self._try(lambda: _append(self.out / "fit.csv", ("step", *names), row))
        for name in names:
            self._show(lambda board, name=name: board.add_scalar(f"fit/{name}", figures[name], step))
        text = f"step {step}: fit {figures['fit']:.4f} (boxes {figures['box_agreement']:.3f}, drawn figures "
        text += f"{figures['figure_iou']:.3f})"
        self.console.print(text + (", the best so far" if best else ""), highlight=False, soft_wrap=True)
        self.rated = time.monotonic()

    def _seen(self) -> tuple[Sample, Tensor, Tensor]:
        assert self.trainer.seen is not None
        return self.trainer.seen

    def _show(self, write: Callable[..., Any]) -> None:
        """Write to TensorBoard's folder, where there is one."""
        if self.board is not None:
            board = self.board
            self._try(lambda: write(board))

    def _try(self, write: Callable[[], Any]) -> None:
        """A log that cannot be written must not end the run."""
        try:
            write()
        except (OSError, RunError, UnicodeError) as error:
            if not self.failed:
                reason = getattr(error, "strerror", None) or one_line(error)
                text = f"{self.out}: log not written ({reason}); the run goes on"
                self.console.print(text, highlight=False, soft_wrap=True)
            self.failed = True


def picture_grid(batch: Sample, student: Tensor, teacher: Tensor) -> Tensor:
    """Rows of a batch's first boxes: the student's crop, its box, both masks; uint8 [3, rows*side, 4*side]."""
    side, count = PICTURE_SIDE, PICTURES
    crops = batch["student"][:count].permute(0, 3, 1, 2).float().cpu()
    grey = [batch["mask"][:count, None].float().cpu() * 255]
    grey += [logits[:count].float().sigmoid().cpu() * 255 for logits in (student, teacher)]
    columns = [resize(crops, (side, side)), *(resize(x, (side, side)).expand(-1, 3, -1, -1) for x in grey)]
    return torch.cat([torch.cat(list(c), 1) for c in columns], 2).round().to(torch.uint8)


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _append(path: Path, header: tuple[str, ...], row: tuple[Any, ...]) -> None:
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="") as file:
        csv.writer(file).writerows([header, row] if new else [row])


def _trim(path: Path, step: int) -> None:
    """After a kill a log may run ahead of the checkpoint: drop the rows that will be written again."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines() or [""]
    kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= step]
    write_whole(path, "".join(line + "\n" for line in [header, *kept]).encode())
