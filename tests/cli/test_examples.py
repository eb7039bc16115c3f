"""`mal-trt examples`: whole, again, and never over something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command import call


def examples(folder: Path) -> Any:
    return call("examples", str(folder))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pictures_and_boxes_fit_together(tmp_path: Path) -> None:
    done = examples(tmp_path / "new" / "here")
    assert done.exit_code == 0, done.output
    written = content(tmp_path / "new" / "here")
    boxes, points = json.loads(written["boxes.json"]), json.loads(written["points.json"])
    assert {f"photos/{picture['file_name']}" for picture in boxes["images"]} | {"boxes.json", "points.json"} == set(
        written
    )
    known = {annotation["id"] for annotation in boxes["annotations"]}
    assert points["points"] and all(point["annotation_id"] in known for point in points["points"])


def test_again_changes_nothing(tmp_path: Path) -> None:
    examples(tmp_path)
    (tmp_path / "photos" / "coffee.jpg").unlink()
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert examples(tmp_path).exit_code == 0
    assert (tmp_path / "photos" / "coffee.jpg").is_file()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")} == times


def test_another_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "points.json").write_text("mine")
    done = examples(tmp_path)
    assert done.exit_code == 2 and "points.json: exists with other content" in done.stderr
    assert content(tmp_path) == {"points.json": b"mine"}


def test_names_that_need_care(tmp_path: Path) -> None:
    folder = tmp_path / "my folder"
    assert f"--images '{folder}/photos' --boxes '{folder}/boxes.json'" in examples(folder).output
    done = examples(tmp_path / ("a" * 300))
    assert done.exit_code == 2 and done.stderr.count("\n") == 1


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("mine")
    done = examples(tmp_path)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert content(tmp_path) == {"photos": b"mine"}
