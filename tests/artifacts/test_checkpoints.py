"""Checkpoints given for models: exported once, found again, told about; what is exported is up to the caller."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("onnx")

from mal_trt.artifacts import checkpoints
from mal_trt.artifacts.checkpoints import Choice, Exports
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import RunError
from mal_trt.labelling.labeler import Labeler
from tiny_model import write_tiny_model


class Exporter:
    """Writes a tiny model in the place of a checkpoint's, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.exports = Exports(self, self.said.append)

    def __call__(self, checkpoint: Path, out: Path, **options: Any) -> None:
        self.asked.append(options)
        write_tiny_model(out, weights=options["weights"], source_sha256=file_sha256(checkpoint))
        out.with_suffix(".parity.npz").write_bytes(b"")


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "base-16epoch=10.pth"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def test_exported_once_and_found_again(checkpoint: Path, exporter: Exporter, tmp_path: Path) -> None:
    first = exporter.exports.model(checkpoint)
    assert first.is_file() and first.is_relative_to(tmp_path / "cache" / "mal-trt")
    assert first.name.startswith("base-16epoch=10-") and first.suffix == ".onnx"
    assert exporter.exports.model(checkpoint) == first
    assert exporter.asked == [asdict(Choice())]
    assert len(exporter.said) == 2 and "exporting it, once" in exporter.said[0]
    later = Exporter()
    assert later.exports.model(checkpoint) == first
    assert later.asked == [] and len(later.said) == 1 and f"exported before, to {first}" in later.said[0]


def test_other_weights_and_options_are_another_model(checkpoint: Path, exporter: Exporter) -> None:
    choices = [Choice(), Choice("teacher"), Choice(input_size=64), Choice(margin=0.4), Choice(head="fixed")]
    assert len({exporter.exports.model(checkpoint, choice) for choice in choices}) == len(choices)
    assert exporter.asked == [asdict(choice) for choice in choices]


def test_a_changed_checkpoint_is_exported_again(checkpoint: Path, exporter: Exporter) -> None:
    first = exporter.exports.model(checkpoint)
    checkpoint.write_bytes(b"other weights")
    assert exporter.exports.model(checkpoint) != first
    assert len(exporter.asked) == 2


@pytest.mark.parametrize("harm", ["truncated", "another model", "no parity file"])
def test_a_broken_cache_is_made_anew(checkpoint: Path, exporter: Exporter, harm: str) -> None:
    path = exporter.exports.model(checkpoint)
    whole = path.read_bytes()
    if harm == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif harm == "another model":
        write_tiny_model(path)
    else:
        path.with_suffix(".parity.npz").unlink()
    again = Exporter()
    assert again.exports.model(checkpoint) == path
    assert len(again.asked) == 1 and path.read_bytes() == whole


def test_a_missing_package_names_the_extra(checkpoint: Path) -> None:
    def export(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    with pytest.raises(RunError, match=r'exported first, which needs torch; run: pip install "mal-trt\[export\]"'):
        Exports(export, print).model(checkpoint)


def test_a_cache_that_cannot_be_written(checkpoint: Path, exporter: Exporter, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(RunError, match=r"cannot hold the exported model .*XDG_CACHE_HOME"):
        exporter.exports.model(checkpoint)


def test_the_package_finds_the_exporter_itself(
    checkpoint: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was imported before."""
    monkeypatch.setitem(sys.modules, "mal_trt.export.export", SimpleNamespace(export_onnx=exporter))
    monkeypatch.setattr(checkpoints, "_exports", checkpoints._exports)
    checkpoints.say_with(exporter.said.append)
    assert resolve_model(str(checkpoint), "teacher").suffix == ".onnx"
    assert exporter.asked == [asdict(Choice("teacher"))] and len(exporter.said) == 2


def test_labelling_takes_checkpoints(
    checkpoint: Path, exporter: Exporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is exported is logged where nobody asked for more, and nothing stands on standard output."""
    monkeypatch.setitem(sys.modules, "mal_trt.export.export", SimpleNamespace(export_onnx=exporter))
    monkeypatch.setattr(checkpoints, "_exports", Exports(checkpoints._export, logging.getLogger("mal_trt").warning))
    with Labeler(checkpoint, device="cpu", threads=1, weights="teacher") as labeler:
        assert labeler.contract.weights == "teacher"
    assert len(exporter.asked) == 1 and "exporting it, once" in caplog.text
