"""What is written over, what is left behind: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from mal_trt.base.errors import InputError, RunError
from mal_trt.calibration import output
from mal_trt.calibration.calibrate import calibrate
from mal_trt.calibration.convert import convert
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.formats.boxes import Boxes

Write = Callable[..., Any]
QUICK = CalibrationSettings(crops=32, check_crops=4, sensitivity_crops=0, max_miou_drop=1)


@pytest.mark.parametrize("name", ["out.onnx", "out.parity.npz", "out.report.json"])
def test_folders_are_refused_first(tmp_path: Path, encoder: Write, pictures: Write, name: str) -> None:
    model, boxes = encoder(), pictures()
    (tmp_path / name).mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"{name}: a folder"):
        calibrate(model, tmp_path / "out.onnx", [boxes], QUICK)
    assert sorted(tmp_path.iterdir()) == before


def test_no_input_is_written_over(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, boxes = encoder(), pictures()
    before, out = model.read_bytes(), tmp_path / "out.onnx"
    with pytest.raises(InputError, match=r"model.onnx: is an input"):
        calibrate(model, model, [boxes], QUICK)
    with pytest.raises(InputError, match=r"model.onnx: is an input"):
        convert(model, model)
    for cache in (out, model, tmp_path / "out.report.json"):
        with pytest.raises(InputError, match=r"--cache .*: is the model itself or one of the files written"):
            calibrate(model, out, [boxes], QUICK, cache=cache)
    assert model.read_bytes() == before and not out.exists()


def test_a_report_does_not_take_the_place_of_the_boxes(tmp_path: Path, encoder: Write, pictures: Write) -> None:
    model, (images, boxes) = encoder(), pictures()
    named = boxes.rename(tmp_path / "out.report.json")
    before = named.read_bytes()
    for sources, judged in (([(images, named)], None), ([(images, pictures()[1])], (images, Boxes(named)))):
        with pytest.raises(InputError, match=r"out\.report\.json: is an input"):
            calibrate(model, tmp_path / "out.onnx", sources, QUICK, annotations=judged)
    assert named.read_bytes() == before


def test_a_cache_that_could_not_be_written_is_refused_first(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mal_trt.calibration.calibrate.spectra", lambda *_: pytest.fail("measured"))
    for cache, why in ((tmp_path / "no" / "c.npz", "its folder does not exist"), (tmp_path, "a folder")):
        with pytest.raises(InputError, match=why):
            calibrate(encoder(), tmp_path / "out.onnx", [pictures()], QUICK, cache=cache)


def test_half_written_files_have_names_of_their_own(tmp_path: Path) -> None:
    """Also on two machines, where processes may have the same number."""
    with output.scratch(tmp_path / "m.onnx", "int8") as one, output.scratch(tmp_path / "m.onnx", "int8") as other:
        assert one != other and one.parent == tmp_path and one.suffix == ".onnx"


def test_a_model_that_cannot_be_put_in_place_leaves_what_was_there(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, boxes = encoder(), pictures()
    (tmp_path / "out.report.json").write_text("earlier")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).suffix == ".onnx":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(output.os, "replace", refuse)
    with pytest.raises(RunError, match=r"out.onnx: cannot be written \(Permission denied\)"):
        calibrate(model, tmp_path / "out.onnx", [boxes], QUICK)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_report_that_cannot_be_written_leaves_no_model(
    tmp_path: Path, encoder: Write, pictures: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, boxes = encoder(), pictures()
    before, write = sorted(tmp_path.iterdir()), output.write_whole

    def full(path: Path, content: bytes) -> None:
        if path.name.endswith(".report.json"):
            raise RunError(f"{path}: cannot be written (No space left on device)")
        write(path, content)

    monkeypatch.setattr(output, "write_whole", full)
    with pytest.raises(RunError, match="No space left"):
        calibrate(model, tmp_path / "out.onnx", [boxes], QUICK)
    assert sorted(tmp_path.iterdir()) == before


ENDED = """
import os, signal, sys
from pathlib import Path
from mal_trt.calibration import output
from mal_trt.base.signals import unwound_when_ended

before = signal.getsignal(signal.SIGTERM)
try:
    with unwound_when_ended(), output.scratch(Path(sys.argv[1]) / "o.onnx", "check") as part:
        part.write_bytes(b"")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
except KeyboardInterrupt:
    print("unwound", signal.getsignal(signal.SIGTERM) is before)
"""


def test_being_ended_unwinds(tmp_path: Path) -> None:
    """In a process of its own, since tests may run beside the main thread, which alone takes signals."""
    command = [sys.executable, "-c", ENDED, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("unwound True\n", 0), done.stderr
    assert not list(tmp_path.iterdir())
