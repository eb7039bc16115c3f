"""Results are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import check_apart, check_folder, could_make_folder, make_folder, write_json


def test_result_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"result\.json: cannot be written"):
        write_json({"miou": 1.0}, tmp_path / "no_such_folder" / "result.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match=r"taken: cannot be written"):
        write_json({"miou": 1.0}, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_folder_of_a_result(tmp_path: Path) -> None:
    check_folder(None)
    check_folder(tmp_path / "result.json")
    with pytest.raises(InputError, match=r"absent.result\.json: its folder does not exist"):
        check_folder(tmp_path / "absent" / "result.json")


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
        for check in (check_folder, lambda path: make_folder(path.parent), lambda path: could_make_folder(path.parent)):
            with pytest.raises(InputError, match="a URL, and this is written on a disk; give a path"):
                check(Path(url))
    assert not list(tmp_path.iterdir())
