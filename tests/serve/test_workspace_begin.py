"""How the page's work begins, and what a later start makes of it: other boxes, pictures that came, limits that rose."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from label_data import blob_picture
from mal_trt.base.errors import InputError
from mal_trt.serve.workspace import Workspace
from serving import png
from workspace_page import DOCUMENT, Opened, done, drawn

MOST = 1 << 20  # pixels


@pytest.fixture
def open_work(serve_folder: Path, tmp_path: Path) -> Any:
    """Opens the work of a folder with pictures of its own; document: its boxes, text as it stands."""
    from mal_trt.formats.boxes import Boxes

    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        shutil.copyfile(serve_folder / "pictures" / name, tmp_path / "pictures" / name)

    def open(document: Any = None, path: str | Path = tmp_path / "boxes.json", most: int = MOST) -> Workspace:
        if document is not None:
            Path(path).write_text(document if isinstance(document, str) else json.dumps(document))
        boxes = Boxes(path) if document is not None else None
        return Workspace(tmp_path / "work", tmp_path / "pictures", boxes, most)

    return open


def objects(work: Workspace) -> list[int]:
    """Objects of each picture; the work is closed."""
    ids = work.order()
    found = [len(work.journal.annotations(id)) for id in ids]
    work.close()
    return found


def test_boxes_may_come_after_the_page_was_only_looked_at(open_work: Any) -> None:
    assert objects(open_work()) == [0, 0]
    assert objects(open_work(DOCUMENT)) == [2, 1, 0]


def test_boxes_do_not_go_into_work_that_was_begun_without(open_work: Any) -> None:
    work = open_work()
    work.accept(1)
    work.close()
    with pytest.raises(InputError, match="begun without boxes; give another --workspace"):
        open_work(DOCUMENT)
    assert objects(open_work()) == [0, 0]


def test_boxes_that_could_not_be_read_may_be_mended(open_work: Any) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        open_work('{"images": [')
    assert objects(open_work(DOCUMENT)) == [2, 1, 0]


def test_the_same_boxes_by_another_path_are_the_same(
    open_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_work(DOCUMENT).close()
    monkeypatch.chdir(tmp_path)
    assert objects(open_work(DOCUMENT, path="boxes.json")) == [2, 1, 0]


def test_a_picture_that_was_missing_brings_its_boxes_when_it_is_there(open_work: Any, tmp_path: Path) -> None:
    missing = {"id": 50, "image_id": 9, "category_id": 40, "bbox": [5, 5, 40, 30], "note": "kept"}
    document = {**DOCUMENT, "annotations": [*DOCUMENT["annotations"], missing]}
    del document["categories"]  # so that its class comes with it
    work = open_work(document)
    assert "2 boxes cannot be used" in work.summary()["notes"][-1]
    work.delete(1)
    assert objects(work) == [1, 1, 0]
    (tmp_path / "pictures" / "missing.png").write_bytes(png(blob_picture(120, 80, 5)))
    work = open_work(document)
    assert "1 box cannot be used" in work.summary()["notes"][-1]
    assert work.rows([3])[0]["problem"] is None and work.files.measured(3).stored == "missing.png"
    (one,) = work.journal.annotations(3)
    classes = {kind["number"]: kind["name"] for kind in work.summary()["categories"]}
    assert (one.id, one.box, classes[one.category]) == (4, (5, 5, 45, 35), "40")
    assert objects(work) == [1, 1, 1]
    assert objects(open_work(document)) == [1, 1, 1]


def test_what_was_wrong_with_a_picture_is_looked_at_again(open_work: Any) -> None:
    work = open_work(DOCUMENT, most=100)
    work.set_problem(1, "120x80 pixels; the limit is 0.0 million")
    assert work.undrawn() == 1
    work.close()
    work = open_work(DOCUMENT)
    assert work.undrawn() == 3 and [row["problem"] is None for row in work.rows([1, 2, 3])] == [True, True, False]
    work.close()


def test_a_name_that_is_not_utf8_is_told_and_the_others_go_on(open_work: Any, tmp_path: Path) -> None:
    try:
        shutil.copyfile(tmp_path / "pictures" / "a.png", os.fsencode(tmp_path / "pictures") + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes no such names")
    for _ in range(2):  # it is no other picture at the next start
        work = open_work()
        rows = work.rows(work.order())
        work.close()
        assert [row["name"] for row in rows] == ["a.png", "caf\ufffd.png", "sub/b.png"]
        assert [row["problem"] for row in rows] == [None, "its name is not UTF-8; give it another", None]


@pytest.mark.skipif(os.name == "nt", reason="such names are no names there")
@pytest.mark.parametrize("name", ["a\\b.png", "a\nb.png"])
def test_a_name_that_would_not_be_opened_is_told_from_the_start(open_work: Any, tmp_path: Path, name: str) -> None:
    shutil.copyfile(tmp_path / "pictures" / "a.png", tmp_path / "pictures" / name)
    document = {**DOCUMENT, "images": [*DOCUMENT["images"], {"id": 70, "file_name": name, "width": 120, "height": 80}]}
    for boxes in (None, None, document):
        work = open_work(boxes)
        odd = [row["problem"] for row in work.rows(work.order()) if row["name"] == name]
        work.close()
        assert odd == ["its name has a backslash or a control character; give it another"]


def test_a_queue_that_is_shorter_than_a_pictures_boxes(page: Opened) -> None:
    from mal_trt.serve.settings import Limits

    records = [{"id": i, "image_id": 7, "category_id": 3, "bbox": [i, i, 28, 20]} for i in range(1, 8)]
    with page({**DOCUMENT, "annotations": records}, limits=Limits(boxes=2, queue=2)) as server:
        drawn(server)


def test_a_browser_keeps_the_pictures_of_this_work_alone(page: Opened, tmp_path: Path) -> None:
    keys = []
    for name in ("one", "two", "one"):
        with page(workspace=tmp_path / name) as server:
            keys.append(server.get("/workspace").json["key"])
            for kind in ("file", "small"):
                kept = [
                    server.get(f"/workspace/pictures/1/{kind}{query}").headers["cache-control"]
                    for query in (f"?key={keys[-1]}", f"?key={keys[0]}x", "")
                ]
                assert kept == ["private, max-age=300", "no-store", "no-store"]
    assert keys[0] == keys[2] != keys[1]


def test_a_deletion_that_is_sent_again_is_made_once(page: Opened) -> None:
    with page() as server:
        path = "/workspace/objects/1?token=0123456789ab"
        first, second = server.ask("DELETE", path), server.ask("DELETE", path)
        assert (first.status, second.status) == (200, 200) and first.json["undo"] == second.json["undo"] == 1
        assert server.ask("DELETE", "/workspace/objects/1?token=abcdefgh0123").status == 400


def test_an_export_may_take_longer_than_a_request(page: Opened, monkeypatch: Any) -> None:
    from mal_trt.serve import exporting
    from mal_trt.serve.settings import Limits

    writes = exporting.write_outputs

    def slow(*given: Any) -> Any:
        time.sleep(1.0)
        return writes(*given)

    with page(limits=Limits(seconds=0.7)) as server:
        drawn(server)
        monkeypatch.setattr(exporting, "write_outputs", slow)
        assert done(server, "POST", "/exports", {"format": "coco"})["written"] == 3
