"""Results are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.files import check_folder, write_json


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
