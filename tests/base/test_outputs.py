"""Results are written whole or not at all."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import (
    check_apart,
    check_file,
    check_new,
    could_make_folder,
    make_folder,
    replaced,
    write_json,
)


def test_result_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"result\.json: cannot be written"):
        write_json({"miou": 1.0}, tmp_path / "no_such_folder" / "result.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match=r"taken: cannot be written"):
        write_json({"miou": 1.0}, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_what_a_result_may_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_file(None)
    check_file(tmp_path / "result.json")
    check_file(tmp_path / "M.ONNX", (".onnx",))
    (tmp_path / "taken").mkdir()
    for name, endings, says in (
        ("absent/result.json", (), r"absent.result\.json: its folder does not exist"),
        ("taken", (), "taken: a folder; give the name of a file"),
        ("m.json", (".onnx", ".plan"), r"must end in \.onnx or \.plan"),
    ):
        with pytest.raises(InputError, match=says):
            check_file(tmp_path / name, endings)
    with pytest.raises(InputError, match="taken: exists and is never overwritten"):
        check_new(tmp_path / "taken")
    monkeypatch.setattr("mal_trt.base.outputs.os.access", lambda *_: False)
    with pytest.raises(InputError, match="its folder cannot be written to"):
        check_file(tmp_path / "result.json")


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    out.write_text("before")
    with pytest.raises(KeyError), replaced(out) as part:
        part.write_text("half")
        assert part.suffix == ".onnx" and part.parent == tmp_path
        raise KeyError
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]
    says = r"m\.onnx: cannot be written \(No such file or directory\); try again"
    with pytest.raises(RunError, match=says), replaced(out, "try again"):
        pass  # nothing was written
    with replaced(out) as part:
        part.write_text("after")
    assert out.read_text() == "after" and list(tmp_path.iterdir()) == [out]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """As /dev/stdout may be one; a file in its place would reach nobody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_json({"miou": 1.0}, pipe)
        assert json.loads(read.result(10)) == {"miou": 1.0}
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_result_in_the_place_of_an_input(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photos, boxes, link = tmp_path / "photos", tmp_path / "boxes.json", tmp_path / "link.json"
    foreign = [photos / name for name in ("a.jpg", "labelme.json", "boxes.csv")]
    for path in (*foreign, boxes):
        path.write_text('{"shapes": []}')
    link.symlink_to(boxes)
    ours = {"miou.json": {"miou": 0.5, "per_class": {}}, "speed.json": {"machine": {}, "models": []}}
    for name, content in ours.items():
        (photos / name).write_text(json.dumps(content))
    (photos / "speed.csv").write_text("model,sha256,precision,provider\n")
    (photos / "empty.json").touch()
    inputs = (photos, str(boxes), "bundled", "s3://bucket/photos", None)
    earlier = [photos / name for name in (*ours, "speed.csv", "empty.json")]
    check_apart((None, tmp_path / "new.json", photos / "b.jpg", *earlier), inputs)
    for out in (boxes, link):
        with pytest.raises(InputError, match="is an input and would be overwritten"):
            check_apart((None, out), inputs)
    for out in foreign:
        with pytest.raises(InputError, match="lies among the inputs"):
            check_apart((out,), inputs)


def test_a_url_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or results land in a folder called "s3:" of a machine that will be gone."""
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/out/labels.json", "memory://labels.json"):
        for check in (check_file, lambda path: make_folder(path.parent), lambda path: could_make_folder(path.parent)):
            with pytest.raises(InputError, match="a URL, and this is written on a disk; give a path"):
                check(Path(url))
    assert not list(tmp_path.iterdir())
