"""What is said when a process that belongs to a run ends, or fails, before the run does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data._utils import signal_handling

from mal_trt.base.errors import InputError, RunError
from mal_trt.training import dry_run
from mal_trt.training.config import TrainConfig
from mal_trt.training.data import Samples
from mal_trt.training.loop import train
from mal_trt.training.run_lock import NAME, alone

forks = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="a patch reaches processes that cut crops by forking alone"
)


def hears(*_: Any) -> None:
    """The caller's own handler of SIGCHLD."""


def fails(*_: Any) -> Any:
    raise RunError("no picture at all")


def is_killed(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def has_no_room(*_: Any) -> Any:
    raise RuntimeError("unable to write to file </torch_12_34>: No space left on device (28)")


def is_too_large(*_: Any) -> Any:
    return np.empty(1 << 50, np.uint8)


def has_no_memory(*_: Any) -> Any:
    raise MemoryError


@forks
@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (fails, "^no picture at all$"),
        (is_killed, r"^a process that cuts crops ended early .*--shm-size.*go on with --resume.*--workers"),
        (has_no_room, r"^a process that cuts crops ended early \(unable to write .*--shm-size"),
        (is_too_large, r"^out of memory \(\w.*lower --batch"),
        (has_no_memory, r"^out of memory \(\w.*lower --batch"),
    ],
)
def test_processes_that_cut_crops(plan: TrainConfig, monkeypatch: pytest.MonkeyPatch, happens: Any, says: str) -> None:
    monkeypatch.setattr(Samples, "__getitem__", happens)
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.signal(signal.SIGCHLD, hears)
    try:
        with pytest.raises(RunError, match=says) as error:
            train(replace(plan, workers=1))
        assert "\n" not in str(error.value)
        assert signal.getsignal(signal.SIGCHLD) is hears
    finally:
        signal.signal(signal.SIGCHLD, before)


HOLDS = "import sys; from pathlib import Path; from mal_trt.training.run_lock import alone\n"
HOLDS += "with alone(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is checked there")
def test_two_runs_in_one_folder(plan: TrainConfig, tmp_path: Path) -> None:
    plan.out.mkdir()
    words = [sys.executable, "-c", HOLDS, str(plan.out)]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(InputError, match="another run is training into it"), alone(plan.out):
            pass
        other.kill()
    with alone(plan.out):
        assert (plan.out / NAME).exists()
        with pytest.raises(InputError, match="another run is training into it"), alone(plan.out / ".." / plan.out.name):
            pass
        assert (plan.out / NAME).exists()
    assert list(plan.out.iterdir()) == []


def test_one_process_decides_when_measuring_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one waits forever for a step that the others do not make."""
    said = iter([False, False, True])
    trainer: Any = SimpleNamespace(step=0, total_steps=100, config=SimpleNamespace(accumulate=1))
    trainer.fabric = SimpleNamespace(broadcast=lambda own: next(said))
    trainer.device, trainer.train_step = SimpleNamespace(type="cpu"), lambda *batch: None
    monkeypatch.setattr(dry_run, "SECONDS", 0.0)
    prepared: Any = SimpleNamespace(trainer=trainer, loader=lambda: [None] * 100)
    assert len(dry_run._timed(prepared)) == 3
