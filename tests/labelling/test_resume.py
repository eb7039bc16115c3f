"""A run killed at any point goes on where it was and ends in the same bytes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mal_trt import label
from mal_trt.base.errors import InputError, RunError
from mal_trt.formats.picture_folder import FolderPictures
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.predictor import Predictor

Write = Callable[..., Any]
OPTIONS = {"batch": 4, "device": "cpu", "threads": 1, "progress": False}

# Runs a label run and does something drastic when the network is called for the n-th time (1 is the trial run),
# or when a named function is. Prints how often the network ran.
SCRIPT = """
import json, os, resource, signal, sys, time
import mal_trt.labelling.run
from mal_trt.base.errors import MalTrtError
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.predictor import Predictor

arguments = json.loads(sys.argv[1])
calls = recorded = 0
original, add = Predictor.run, Journal.add

def run(self, *rest):
    global calls
    calls += 1
    # A busy machine may not have recorded yet what left the network long before: all but the last batch or two.
    until = time.monotonic() + 20
    killed = calls >= arguments["at"] > 0 and arguments["signal"] == signal.SIGKILL
    while killed and recorded < (calls - 4) * arguments["options"]["batch"] and time.monotonic() < until:
        time.sleep(0.01)
    if calls == arguments["at"]:
        os.kill(os.getpid(), arguments["signal"])
    return original(self, *rest)

def count(journal, results):
    global recorded
    results = list(results)
    add(journal, results)
    recorded += len(results)

Predictor.run, Journal.add = run, count
if arguments["function"]:
    setattr(mal_trt.labelling.run, arguments["function"], lambda *a: os.kill(os.getpid(), signal.SIGKILL))
if arguments["full_in"]:
    function = getattr(mal_trt.labelling.run, arguments["full_in"])
    def full(*rest):
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments["limit"], resource.RLIM_INFINITY))
        return function(*rest)
    setattr(mal_trt.labelling.run, arguments["full_in"], full)
try:
    summary = mal_trt.labelling.run.label(*arguments["paths"], resume=arguments["resume"], **arguments["options"])
except MalTrtError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
except KeyboardInterrupt:
    print(json.dumps({"error": "interrupted", "calls": calls - 1}))
else:
    print(json.dumps({"calls": calls - 1, "resumed": summary.resumed}))
"""


def in_process(
    *paths: Path,
    at: int = 0,
    kill: int = signal.SIGKILL,
    function: str = "",
    full_in: str = "",
    limit: int = 0,
    resume: bool = False,
    **options: Any,
) -> tuple[int, Any]:
    """Exit status and printed result of the script above."""
    arguments = {
        "paths": [str(p) for p in paths],
        "at": at,
        "signal": kill,
        "function": function,
        "full_in": full_in,
        "limit": limit,
        "resume": resume,
        "options": {**OPTIONS, **options},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)], capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def resumed(*paths: Path, **options: Any) -> int:
    """Resume a run in this process; how often the network ran, trial run apart."""
    calls = 0
    original = Predictor.run

    def count(self: Predictor, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "run", count)
        label(*paths, resume=True, **{**OPTIONS, **options})
    return calls - 1


def expected(tmp_path: Path, images: Path, boxes: Path, model: Path) -> bytes:
    out = tmp_path / "straight.json"
    label(images, boxes, model, out, **OPTIONS)
    return out.read_bytes()


@pytest.mark.parametrize("at", [2, 4, 6])
def test_kill_9_and_resume(tmp_path: Path, tiny_model: Write, data_set: Write, at: int) -> None:
    """Masks of this model depend on the whole batch, so equal bytes mean equal batches."""
    images, boxes = data_set()  # 15 small, 3 medium boxes: batches of 4, 4, 4, 3 and 3
    (images / "000000000002.png").write_bytes(b"")  # leaves holes in the batches
    model = tiny_model(coupled=True)
    straight = expected(tmp_path, images, boxes, model)
    out = tmp_path / "killed.json"
    status, _ = in_process(images, boxes, model, out, at=at)
    assert status == -signal.SIGKILL
    assert not out.exists() and (tmp_path / "killed.json.journal").exists()
    with pytest.raises(InputError, match=r"killed\.json\.journal.*--resume"):
        label(images, boxes, model, out, **OPTIONS)
    calls = resumed(images, boxes, model, out)
    # Of the batches that had left the network, the last one or two may not have been recorded yet.
    assert at - 4 <= 5 - calls <= at - 2
    assert out.read_bytes() == straight
    assert (tmp_path / "killed.skipped.json").read_bytes() == (tmp_path / "straight.skipped.json").read_bytes()
    assert not list(tmp_path.glob("killed.json.*")) and not list(tmp_path.glob(".killed*"))


def test_coupling_shows_in_the_masks(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    """Else the test above would show nothing: other batches, other bytes."""
    images, boxes = data_set()
    model = tiny_model(coupled=True)
    straight = expected(tmp_path, images, boxes, model)
    label(images, boxes, model, tmp_path / "other.json", **{**OPTIONS, "batch": 3})
    assert (tmp_path / "other.json").read_bytes() != straight


def test_killed_again_and_again(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model(coupled=True)
    straight = expected(tmp_path, images, boxes, model)
    out = tmp_path / "killed.json"
    for _ in range(12):
        # The third call after the trial run: at least one batch is recorded each time.
        status, _ = in_process(images, boxes, model, out, at=5, resume=True)
        if status == 0:
            break
    assert out.read_bytes() == straight


@pytest.mark.parametrize("function", ["write_plan", "write_skipped", "write_outputs", "write_overlays"])
def test_killed_between_the_stages(tmp_path: Path, tiny_model: Write, data_set: Write, function: str) -> None:
    images, boxes = data_set()
    model = tiny_model()
    straight = expected(tmp_path, images, boxes, model)
    out = tmp_path / "killed.json"
    overlay = str(tmp_path / "overlays")
    status, _ = in_process(images, boxes, model, out, function=function, overlay=overlay)
    assert status == -signal.SIGKILL
    assert resumed(images, boxes, model, out, overlay=overlay) == (5 if function == "write_plan" else 0)
    assert out.read_bytes() == straight
    assert len(list((tmp_path / "overlays").iterdir())) == 3
    assert not list(tmp_path.glob("killed.json.*"))


def test_interrupt_keeps_every_batch_that_left_the_network(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model = tiny_model()
    straight = tmp_path / "straight.json"
    label(images, boxes, model, straight, **{**OPTIONS, "batch": 1})  # 18 batches, most of them after the interrupt
    out = tmp_path / "stopped.json"
    _, result = in_process(images, boxes, model, out, at=4, kill=signal.SIGINT, batch=1)
    assert result["error"] == "interrupted" and result["calls"] >= 3
    left = resumed(images, boxes, model, out, batch=1)
    assert left == 18 - result["calls"] and left > 0
    assert out.read_bytes() == straight.read_bytes()


def test_a_disk_that_dropped_is_no_end(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all further boxes would be skipped for good, and the run would count as finished."""
    images, boxes = data_set(pictures=20)
    model, out, add = tiny_model(), tmp_path / "labels.json", Journal.add

    def unplugged(self: Journal, results: Any) -> None:
        add(self, results)
        if not (tmp_path / "unplugged").exists():
            images.rename(tmp_path / "unplugged")
            images.mkdir()  # as a mount point is left

    monkeypatch.setattr(Journal, "add", unplugged)
    with pytest.raises(RunError, match=r"pictures: was there when the run began, .*run again with --resume"):
        label(images, boxes, model, out, **OPTIONS)
    monkeypatch.undo()
    images.rmdir()
    (tmp_path / "unplugged").rename(images)
    again = label(images, boxes, model, out, resume=True, **OPTIONS)
    assert 0 < again.resumed < again.labelled == again.total
    label(images, boxes, model, tmp_path / "straight.json", **OPTIONS)
    assert out.read_bytes() == (tmp_path / "straight.json").read_bytes()


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_a_machine_at_its_end_is_no_fault_of_a_picture(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    images, boxes = data_set(pictures=8)
    model, out, stream = tiny_model(), tmp_path / "labels.json", FolderPictures._stream

    def exhausted(self: FolderPictures, name: str) -> Any:
        if name.startswith("000000000006"):
            raise error
        return stream(self, name)

    monkeypatch.setattr(FolderPictures, "_stream", exhausted)
    with pytest.raises(RunError, match=r"000000000006.png: cannot be read now .*--resume"):
        label(images, boxes, model, out, **OPTIONS)
    monkeypatch.undo()
    again = label(images, boxes, model, out, resume=True, **OPTIONS)
    assert 0 < again.resumed < again.labelled == again.total


def test_resume_without_a_journal_starts(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    assert label(images, boxes, tiny_model(), tmp_path / "a.json", resume=True, **OPTIONS).labelled == 6


@pytest.mark.parametrize("change", ["boxes", "model", "batch", "threshold", "flip", "images", "box_area"])
def test_another_run_is_not_resumed(tmp_path: Path, tiny_model: Write, data_set: Write, change: str) -> None:
    images, boxes = data_set()
    model = tiny_model()
    out = tmp_path / "killed.json"
    in_process(images, boxes, model, out, at=6)
    original = images, boxes.read_text(), model.read_bytes()
    options: dict[str, Any] = {**OPTIONS, "resume": True}
    if change == "boxes":
        boxes.write_text(boxes.read_text() + " ")
    elif change == "model":
        tiny_model(gain=9.0)
    elif change == "images":
        images = images.rename(tmp_path / "moved")
    else:
        options[change] = {"batch": 5, "threshold": 0.3, "flip": True, "box_area": True}[change]
    with pytest.raises(InputError) as caught:
        label(images, boxes, model, out, **options)
    assert change.replace("_", " ") in str(caught.value) and "\n" not in str(caught.value)
    images.rename(original[0])
    boxes.write_text(original[1])
    model.write_bytes(original[2])
    assert resumed(original[0], boxes, model, out) < 5


def test_one_run_at_a_time(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    out = tmp_path / "a.json"
    in_process(images, boxes, tiny_model(), out, at=4)
    journal = Journal(tmp_path / "a.json.journal")
    assert journal.planned  # reads, so holds the lock
    with pytest.raises(InputError, match="another run"):
        label(images, boxes, tiny_model(), out, resume=True, **OPTIONS)
    journal.close()
    assert label(images, boxes, tiny_model(), out, resume=True, **OPTIONS).labelled == 18


@pytest.mark.parametrize(("function", "limit"), [("write_plan", 30_000), ("_run", 120_000), ("write_outputs", 1000)])
def test_full_disk(tmp_path: Path, tiny_model: Write, data_set: Write, function: str, limit: int) -> None:
    """From some point on no file may grow beyond a limit: as on a full disk, each write fails."""
    images, boxes = data_set(pictures=12, size=(200, 160))
    model = tiny_model()
    straight = expected(tmp_path, images, boxes, model)
    out = tmp_path / "full.json"
    _, result = in_process(images, boxes, model, out, full_in=function, limit=limit)
    assert result["error"] == "RunError" and "full.json" in result["text"] and "\n" not in result["text"]
    assert "--resume" in result["text"]
    assert not out.exists() and not list(tmp_path.glob(".full*"))
    assert (tmp_path / "full.json.journal").exists() == (function != "write_plan")
    calls = resumed(images, boxes, model, out)
    if function != "write_plan":
        assert calls < 60  # of 12 pictures with 20 boxes, 4 at a time
    assert out.read_bytes() == straight


def test_threads_end_with_the_run(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    before = threading.active_count()
    original = Predictor.run
    with pytest.MonkeyPatch.context() as patch:
        calls = iter(range(100))

        def failing(self: Predictor, *arguments: Any) -> Any:
            if next(calls) == 2:
                raise ZeroDivisionError
            return original(self, *arguments)

        patch.setattr(Predictor, "run", failing)
        with pytest.raises(ZeroDivisionError):
            label(images, boxes, tiny_model(), tmp_path / "a.json", **OPTIONS)
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) < 200 if sys.platform == "linux" else True
