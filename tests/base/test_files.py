"""Results are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import check_apart, check_folder, write_json


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
    photo, boxes, link = tmp_path / "photos" / "a.jpg", tmp_path / "boxes.json", tmp_path / "link.json"
    for path in (photo, boxes, tmp_path / "photos" / "result.json"):
        path.write_text("[]")
    link.symlink_to(boxes)
    inputs = (tmp_path / "photos", str(boxes), "bundled", "s3://bucket/photos", None)
    check_apart(
        (None, tmp_path / "new.json", tmp_path / "photos" / "result.json", tmp_path / "photos" / "b.jpg"), inputs
    )
    for out in (boxes, link):
        with pytest.raises(InputError, match="is an input and would be overwritten"):
            check_apart((None, out), inputs)
    with pytest.raises(InputError, match="lies among the inputs"):
        check_apart((photo,), inputs)
