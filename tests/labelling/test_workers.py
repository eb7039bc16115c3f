"""Several processes label as one does, and lose nothing when one of them ends early."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt import label
from mal_trt.base.errors import InputError, RunError
from mal_trt.formats.images import open_images
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.workers import Settings, _shares, _work

Write = Callable[..., Any]
OPTIONS = {"batch": 4, "threads": 2, "progress": False}


def test_two_processes_give_the_labels_of_one(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's masks tell with whom a box shared its batch, so the batches are the same too."""
    images, boxes = data_set(pictures=6)
    (images / "000000000002.png").write_bytes(b"not a picture")
    model = tiny_model(coupled=True)
    monkeypatch.setattr("mal_trt.labelling.workers.SHARE", 8)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    alone = label(images, boxes, model, one, device="cpu", **OPTIONS)
    both = label(images, boxes, model, two, device="cpu,cpu", **OPTIONS)
    assert two.read_bytes() == one.read_bytes()
    assert (both.labelled, both.skipped, both.provider) == (alone.labelled, alone.skipped, alone.provider)
    assert both.skipped and not (tmp_path / "two.json.journal").exists()


def planned(tmp_path: Path, data_set: Write, pictures: int) -> Journal:
    """The boxes of so many pictures in batches of four."""
    images, boxes = data_set(pictures=pictures)
    journal = Journal(tmp_path / "journal")
    write_plan(journal, {}, boxes, None, open_images(images), 4)
    return journal


def test_shares_are_whole_batches_and_all_of_them(
    tmp_path: Path, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = planned(tmp_path, data_set, 7)
    monkeypatch.setattr("mal_trt.labelling.workers.SHARE", 8)
    monkeypatch.setattr("mal_trt.labelling.journal.CHUNK", 5)
    shares = list(_shares(journal))
    assert len(shares) > 2
    places = [place for share in shares for place in share.place.tolist()]
    assert sorted(places) == [place for chunk in journal.chunks() for place in chunk.place.tolist()]
    assert len(set(places)) == len(places) == journal.planned_boxes()[0]
    for share in shares:
        assert share.place.tolist() == sorted(share.place)
        for number, (_, count) in share.batches.items():
            assert np.count_nonzero(share.batch == number) == count
        assert set(share.image.tolist()) == set(share.pictures)
        assert set(share.batch.tolist()) == set(share.batches)
    journal.close()


def test_a_short_run_has_boxes_for_all_processes(
    tmp_path: Path, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = planned(tmp_path, data_set, 16)
    monkeypatch.setattr("mal_trt.labelling.workers.FIRST_SHARE", 4)
    monkeypatch.setattr("mal_trt.labelling.workers.SHARE", 16)
    sizes = [len(share) for share in _shares(journal)]
    assert 4 <= sizes[0] < 8 <= sizes[1] < 12 and all(16 <= size < 20 for size in sizes[2:-1]) and len(sizes) > 4
    journal.close()


def test_a_killed_process_is_said_and_nothing_is_lost(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=8)
    model, out = tiny_model(), tmp_path / "labels.json"
    monkeypatch.setattr("mal_trt.labelling.workers.SHARE", 8)
    kept = 0
    add = Journal.add

    def kill(self: Journal, results: Any) -> None:
        nonlocal kept
        add(self, results)
        kept += len(results)
        children = multiprocessing.active_children()
        if len(children) == 2:
            children[0].kill()
            children[0].join()

    monkeypatch.setattr(Journal, "add", kill)
    with pytest.raises(RunError, match=r"^device cpu: its process ended with exit code -9 .*--resume$"):
        label(images, boxes, model, out, device="cpu,cpu", **OPTIONS)
    monkeypatch.setattr(Journal, "add", add)
    assert not multiprocessing.active_children() and kept
    again = label(images, boxes, model, out, device="cpu,cpu", resume=True, **OPTIONS)
    assert again.resumed == kept and again.labelled == again.total
    straight = tmp_path / "straight.json"
    label(images, boxes, model, straight, device="cpu", **OPTIONS)
    assert out.read_bytes() == straight.read_bytes()


def test_an_interrupt_keeps_what_has_arrived(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=8)
    model, out = tiny_model(), tmp_path / "labels.json"
    monkeypatch.setattr("mal_trt.labelling.workers.SHARE", 8)
    add, calls = Journal.add, 0

    def interrupted(self: Journal, results: Any) -> None:
        nonlocal calls
        calls += 1
        add(self, results)
        if calls == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        label(images, boxes, model, out, device="cpu,cpu", **OPTIONS)
    assert not multiprocessing.active_children()
    assert label(images, boxes, model, out, device="cpu", resume=True, **OPTIONS).resumed >= 4


def test_errors_of_a_process_arrive_as_they_are(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    model, out = tiny_model(), tmp_path / "labels.json"
    with pytest.raises(InputError, match="weights, not teacher"):
        label(images, boxes, model, out, device="cpu,cpu", weights="teacher", **OPTIONS)
    assert not multiprocessing.active_children() and not (tmp_path / "labels.json.journal").exists()
    with pytest.raises(InputError, match="device 'cup'"):
        label(images, boxes, model, out, device="cpu,cup", **OPTIONS)


def test_a_script_without_a_main_guard(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    given = ", ".join(repr(str(path)) for path in (images, boxes, tiny_model(), tmp_path / "labels.json"))
    script = tmp_path / "script.py"
    script.write_text(f"from mal_trt import label\nlabel({given}, device='cpu,cpu', threads=1, progress=False)\n")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ran.returncode and 'below `if __name__ == "__main__":`' in ran.stderr.splitlines()[-1]


def test_a_process_whose_parent_has_gone_ends_quietly(
    tmp_path: Path, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the other process has failed first: its error was said already."""
    monkeypatch.setattr("mal_trt.labelling.workers.signal.signal", lambda *_: None)
    here, there = multiprocessing.Pipe()
    here.close()
    images, _ = data_set(pictures=1)
    _work(there, Settings(tmp_path / "nowhere.onnx", 1), "cpu", 1, images)
