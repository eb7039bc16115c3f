"""Which checkpoint files a run keeps: the last one, and the best few by validation mIoU. One file is `checkpoint`."""

from __future__ import annotations

import re
import time
from pathlib import Path

from rich.console import Console

from mal_trt.base.errors import RunError
from mal_trt.training.trainer import Trainer

LAST, BEST = "last.pth", "best.pth"
Best = re.compile(r"best-step(\d+)-miou([\d.]+)\.pth")


class Checkpoints:
    """Writes them. A file that cannot be written costs nothing but itself: the one before stays, the run goes on."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self.trainer, self.console, self.out = trainer, console, trainer.config.out
        self.saved = time.monotonic()

    @property
    def path(self) -> Path:
        return self.out / LAST

    def after_step(self) -> None:
        """Save where the configuration's minutes, steps or epochs are full."""
        config, step = self.trainer.config, self.trainer.step
        every = config.checkpoint_steps
        if every is None and config.checkpoint_epochs is not None:
            every = max(1, round(config.checkpoint_epochs * self.trainer.steps_per_epoch))
        due = every is not None and step % every == 0
        if due or time.monotonic() - self.saved > config.checkpoint_minutes * 60:
            self.last()

    def last(self, final: bool = False) -> None:
        """Write last.pth. Only the run's final one fails the run."""
        self.saved = time.monotonic()
        try:
            self.trainer.save(self.path)
        except RunError as error:
            if final:
                raise
            self.console.print(f"checkpoint of step {self.trainer.step} lost: {error}", highlight=False, soft_wrap=True)

    def chosen(self) -> None:
        """Write best.pth. It is what a run with patience is for, so a failure ends it: RunError."""
        self.trainer.save(self.out / BEST, resumable=False)

    def best(self, miou: float) -> bool:
        """Keep this step's weights if they are among the best; whether they are the very best."""
        ranked = self.ranked()
        keep = self.trainer.config.keep
        path = self.out / f"best-step{self.trainer.step:07d}-miou{miou:.4f}.pth"
        if keep < 1 or (len(ranked) >= keep and miou <= _miou(ranked[keep - 1]) and path not in ranked):
            return False
        try:
            self.trainer.save(path, resumable=False)
        except RunError as error:
            self.console.print(f"{path.name} lost: {error}", highlight=False, soft_wrap=True)
            return False
        for worse in self.ranked()[keep:]:
            worse.unlink(missing_ok=True)
        return self.ranked()[0] == path

    def ranked(self) -> list[Path]:
        """The kept checkpoints, best first; of equals the earlier one."""
        found = [p for p in self.out.glob("best-step*.pth") if Best.fullmatch(p.name)]
        return sorted(found, key=lambda p: (-_miou(p), p.name))


def _miou(path: Path) -> float:
    match = Best.fullmatch(path.name)
    assert match is not None
    return float(match[2])
