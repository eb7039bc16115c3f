"""Runs in processes of their own: killed and resumed, two at once, a disk that fills up."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mal_trt.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "mal_trt.cli", "train"]
NETWORK = "--arch vit-mal-tiny/16 --layout hybrid --depth 1 --head-width 16 --crop-size 64 --no-adjust-scale"
RUN = "--min-area 100 --device cpu --workers 0 --lr 1e-4 train.crf_num_iter=5 train.log_steps=1"


def command(drawn: Path, out: Path, *more: object) -> list[str]:
    data = ["--images", str(drawn / "pictures"), "--boxes", str(drawn / "boxes.json"), "--out", str(out)]
    return [*COMMAND, *data, *NETWORK.split(), *RUN.split(), *map(str, more)]


def run(words: list[str], folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    """Away from the sources, which Python would import instead of the installed package."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment, **more)  # type: ignore[call-overload,no-any-return]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_kill_in_mid_epoch(drawn: Path, tmp_path: Path) -> None:
    whole = run(command(drawn, tmp_path / "whole", "--batch", 2, "--epochs", 2), tmp_path)
    assert whole.returncode == 0, whole.stderr
    words = command(drawn, tmp_path / "killed", "--batch", 2, "--epochs", 2, "--checkpoint-minutes", 0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.csv"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and (not log.exists() or len(rows(log)) < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    step = read_checkpoint(tmp_path / "killed" / "last.pth").meta["step"]
    assert 3 < step < 40 and step % 20, "killed inside an epoch"
    resumed = run([*words, "--resume"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    one, other = (read_checkpoint(tmp_path / name / "last.pth") for name in ("whole", "killed"))
    for part in ("student", "teacher"):
        a, b = one.weights(part), other.weights(part)
        assert a is not None and b is not None
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert [r["total"] for r in rows(tmp_path / "whole" / "log.csv")] == [r["total"] for r in rows(log)]


def test_two_processes_train_as_one(drawn: Path, tmp_path: Path) -> None:
    """The same boxes in every step: the same losses, up to the published B + 1e-4 in the mean, and figures.

    Later steps may part by more: the mean field's hard masks turn rounding into whole pixels.
    """
    val: tuple[object, ...] = ("--val-images", drawn / "pictures", "--val-boxes", drawn / "val.json")
    val += ("train.loss_mil_step=1", "train.loss_crf_step=1")
    one = run(command(drawn, tmp_path / "one", "--batch", 4, "--epochs", 2, *val), tmp_path)
    two = run(command(drawn, tmp_path / "two", "--batch", 2, "--devices", 2, "--epochs", 2, *val), tmp_path)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert two.stdout.count("checkpoint:") == 1 and two.stderr.count("mIoU") == 2
    losses = [[float(r["total"]) for r in rows(tmp_path / name / "log.csv")] for name in ("one", "two")]
    assert len(losses[0]) == 20 and losses[0][0] == 0 and min(losses[0][1:]) > 0.5
    assert losses[0][:6] == pytest.approx(losses[1][:6], rel=2e-4)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    figures = [[float(r["miou"]) for r in rows(tmp_path / name / "val.csv")] for name in ("one", "two")]
    assert figures[0] == pytest.approx(figures[1], abs=2e-3)


def test_two_processes_stop_together(drawn: Path, tmp_path: Path) -> None:
    words = command(drawn, tmp_path / "run", "--batch", 2, "--devices", 2, "--epochs", 3, "--warmup-epochs", 0.1)
    words[words.index("--lr") + 1] = "1e30"
    done = run(words, tmp_path, timeout=120)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "bad-batch" in errors[0], done.stderr
    assert list((tmp_path / "run").glob("bad-batch*.json"))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the second process by Linux's /proc")
@pytest.mark.parametrize(
    ("rank", "number", "code", "says"),
    [
        (0, signal.SIGTERM, 130, "interrupted; run again with --resume"),
        (1, signal.SIGKILL, 1, "error: process 1 of the run ended with exit code -9"),
    ],
)
def test_one_of_two_processes_ends(drawn: Path, tmp_path: Path, rank: int, number: int, code: int, says: str) -> None:
    words = command(drawn, tmp_path / "run", "--batch", 2, "--devices", 2, "--epochs", 4000)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not (tmp_path / "run" / "log.csv").exists():
        time.sleep(0.05)
    os.kill(process.pid if rank == 0 else _child(process.pid), number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == code, told
    assert told.startswith(says) and told.count("\n") == 1, told


FAILS_ALONE = """
import os
from mal_trt.base.errors import RunError
from mal_trt.training.trainer import Trainer

step = Trainer.train_step

def fail(self, *batch):
    if self.step == 3 and os.environ.get("LOCAL_RANK") == "1":
        raise ERROR
    return step(self, *batch)

Trainer.train_step = fail
from mal_trt.cli import main
main()
"""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("RunError('no picture at all')", "error: no picture at all\n"),
        ("RuntimeError('NCCL error: no room in /dev/shm')", "error: NCCL error: no room in /dev/shm\n"),
    ],
)
def test_the_first_process_says_why_another_failed(drawn: Path, tmp_path: Path, error: str, says: str) -> None:
    words = command(drawn, tmp_path / "run", "--batch", 2, "--devices", 2, "--epochs", 4000)
    script = tmp_path / "fails.py"
    script.write_text(FAILS_ALONE.replace("ERROR", error))
    done = run([sys.executable, str(script), *words[words.index("train") :]], tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (1, says)


def _child(parent: int) -> int:
    """The process that another started as the second of a run."""
    started = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(one) for one in started if b"LOCAL_RANK=1" in Path(f"/proc/{one}/environ").read_bytes())


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX")
def test_a_disk_that_fills_up(drawn: Path, tmp_path: Path) -> None:
    """Real failing writes: files may not grow over a limit that the second run's checkpoint needs."""
    words = command(drawn, tmp_path / "run", "--batch", 4, "--epochs", 1)
    assert run(words, tmp_path).returncode == 0
    checkpoint = tmp_path / "run" / "last.pth"
    before = checkpoint.read_bytes()
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2},) * 2)"
    shell = f"import os, resource, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"
    failed = run([sys.executable, "-c", shell, *words, "--resume"], tmp_path)
    assert failed.returncode == 1 and "error: " in failed.stderr and "last.pth: cannot be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.part"))


def test_two_nodes_by_torchrun(drawn: Path, tmp_path: Path) -> None:
    """As on two machines: a launcher on each, which find each other by a port and gloo; the same losses as alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = command(drawn, tmp_path / "two", "--batch", 2, "--epochs", 1, "train.num_nodes=2")[2:]
    nodes = []
    for rank in range(2):
        where = f"--nnodes 2 --node-rank {rank} --nproc-per-node 1 --master-addr 127.0.0.1 --master-port {port}"
        launcher = [sys.executable, "-m", "torch.distributed.run", *where.split(), "-m", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        node = subprocess.Popen(launcher, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        nodes.append(node)
    told = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    alone = run(command(drawn, tmp_path / "one", "--batch", 4, "--epochs", 1), tmp_path)
    assert alone.returncode == 0, alone.stderr
    losses = [[float(r["total"]) for r in rows(tmp_path / name / "log.csv")] for name in ("one", "two")]
    assert len(losses[0]) == 10 and losses[0] == pytest.approx(losses[1], rel=0.02)
