"""Outputs appear whole, once, and never in the place of something else; several formats at once likewise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import call
from mal_trt import InputError, RunError, Summary, label
from mal_trt.writers.formats import FORMATS

Write = Callable[..., Any]


def run(images: Path, boxes: Path, model: Path, out: Path, **options: Any) -> Summary:
    return label(images, boxes, model, out, batch=4, device="cpu", threads=1, progress=False, **options)


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_all_formats_at_once_are_those_one_by_one(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    pytest.importorskip("pyarrow")
    images, boxes = data_set(pictures=2)
    model = tiny_model()
    summary = run(images, boxes, model, tmp_path / "all", format=",".join(FORMATS))
    assert list(summary.losses) == list(FORMATS) and all(f["masks"] == 12 for f in summary.losses.values())
    record = json.loads((tmp_path / "all.folder.run.json").read_text())
    assert record["losses"] == summary.losses and record["output"]["files"] > len(FORMATS)
    for name, format in FORMATS.items():
        run(images, boxes, model, tmp_path / name, format=[name])
        assert contents(tmp_path / "all" / f"{name}{format.ending}") == contents(tmp_path / name), name
    assert not [p.name for p in tmp_path.iterdir() if "journal" in p.name or "part" in p.name]
    assert run(images, boxes, model, tmp_path / "all", format=list(FORMATS), resume=True).finished_before


@pytest.mark.parametrize("format", ["coco", "cvat", "labelme", "coco,png-instance"])
@pytest.mark.parametrize("function", ["write_outputs", "write_record"])
def test_a_run_stopped_before_or_after_writing_goes_on(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch, format: str, function: str
) -> None:
    images, boxes = data_set(pictures=2)
    model, out = tiny_model(), tmp_path / "out"
    run(images, boxes, model, tmp_path / "straight", format=format)
    with monkeypatch.context() as patch:
        patch.setattr(f"mal_trt.labelling.run.{function}", stop)
        with pytest.raises(KeyboardInterrupt):
            run(images, boxes, model, out, format=format)
    assert out.exists() == (function == "write_record")
    before = out.stat().st_mtime_ns if out.exists() else None
    summary = run(images, boxes, model, out, format=format, resume=True)
    assert summary.resumed == 12 and list(summary.losses) == format.split(",")
    assert contents(out) == contents(tmp_path / "straight")
    assert before in (None, out.stat().st_mtime_ns), "what was whole is not written again"


def test_a_file_that_came_between_is_kept(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=1)
    model, out = tiny_model(), tmp_path / "labels.json"
    for function in ("write_outputs", "outputs.os.replace"):
        with monkeypatch.context() as patch:
            place = "labelling.run." if function == "write_outputs" else "labelling."
            patch.setattr(f"mal_trt.{place}{function}", stop if function == "write_outputs" else refuse)
            with pytest.raises((KeyboardInterrupt, RunError)):
                run(images, boxes, model, out, resume=True)
        out.write_text("mine")
        with pytest.raises(RunError, match="came into being meanwhile"):
            run(images, boxes, model, out, resume=True)
        assert out.read_text() == "mine"
        out.unlink()
    assert run(images, boxes, model, out, resume=True).resumed == 6


def refuse(*_: Any) -> None:
    raise OSError(28, "No space left")


def test_an_unfinished_run_can_end_in_another_format(
    tmp_path: Path, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, boxes = data_set(pictures=1)
    model, out = tiny_model(), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("mal_trt.labelling.run.write_outputs", stop)
        with pytest.raises(KeyboardInterrupt):
            run(images, boxes, model, out, format="yolo")
    run(images, boxes, model, out, format="geojson", resume=True)
    assert [p.suffix for p in out.iterdir()] == [".geojson"]


def test_what_cannot_be_written_is_told_before_any_work(tmp_path: Path, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=1)
    model = tiny_model()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"format bmp: expected one of coco, .*geojson, or several"):
        run(images, boxes, model, tmp_path / "out", format="bmp")
    with pytest.raises(InputError, match="folder: a folder; --out takes the name of a file"):
        run(images, boxes, model, tmp_path / "folder", format="cvat")
    with pytest.raises(InputError, match="simplify -2"):
        run(images, boxes, model, tmp_path / "out", simplify=-2)
    assert not (tmp_path / "out.journal").exists()


@pytest.mark.parametrize(
    ("report", "out", "more"),
    [
        ("new", "new/labels.json", ()),
        ("labels/report", "labels", ("--format", "yolo")),
        ("new", "labels.json", ("--overlay", "new/overlay")),
        ("new", "labels.json", ("--overlay", "overlay", "--sheet", "new/sheet.png")),
        ("new", "labels", ("--format", "yolo", "--overlay", "overlay", "--sheet", "labels/sheet.png")),
    ],
)
def test_a_report_has_a_folder_of_its_own(
    tmp_path: Path, tiny_model: Write, data_set: Write, report: str, out: str, more: tuple[str, ...]
) -> None:
    images, boxes = data_set(pictures=1)
    there = [word if word.startswith("--") or word == "yolo" else tmp_path / word for word in more]
    words = ("--images", images, "--boxes", boxes, "--model", tiny_model(), "--out", tmp_path / out, *there)
    done = call("label", *words, "--report", tmp_path / report, "--quiet")
    assert done.exit_code == 2 and "lies in the " in done.stderr, done.output
    assert not (tmp_path / "new").exists() and not (tmp_path / "labels").exists()
