"""What stands in the page's way and passes: many boxes, slow opening, a full disk, another server at its address."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from label_data import blob_picture
from mal_trt.serve.journal import Journal
from serving import png, serving
from workspace_page import DOCUMENT, Opened, done, send


def test_masks_of_a_crowded_picture_come_some_at_a_time(page: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from mal_trt.serve import desk

    monkeypatch.setattr(desk.Desk, "draw_on", lambda self: None)
    monkeypatch.setattr(desk, "TOGETHER", 4)
    boxes = [{"id": n, "image_id": 7, "category_id": 3, "bbox": [n, n, 20, 20]} for n in range(1, 11)]
    with page({**DOCUMENT, "annotations": boxes}) as server:
        left = []
        while not left or left[-1]:
            objects = done(server, "POST", "/pictures/1/masks", {})["objects"]
            left.append(sum(one["counts"] is None for one in objects))
    assert left == [6, 2, 0]


def test_what_takes_longer_than_a_request_may_is_there_for_the_next(
    serve_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mal_trt.serve import desk
    from mal_trt.serve.settings import Limits, ServeSettings

    opened, began = desk.open_workspace, []

    def slowly(settings: ServeSettings) -> object:
        began.append(1)
        time.sleep(0.6)
        return opened(settings)

    monkeypatch.setattr(desk, "open_workspace", slowly)
    pictures, work = serve_folder / "pictures", tmp_path / "work"
    settings = ServeSettings(
        serve_folder / "tiny.onnx",
        pictures,
        workspace=work,
        port=0,
        device="cpu",
        threads=1,
        limits=Limits(seconds=0.3),
    )
    with serving(settings) as server:
        assert server.get("/workspace").status == 503
        assert server.get("/workspace/revision").status in (200, 503)
        end = time.monotonic() + 30
        while (status := server.get("/workspace").status) == 503 and time.monotonic() < end:
            time.sleep(0.1)
        assert status == 200
    assert len(began) == 1


def test_a_page_of_other_work_changes_nothing(page: Opened, tmp_path: Path) -> None:
    with page() as server:
        first = server.get("/workspace").json["key"]
    with page(workspace=tmp_path / "other") as server:
        own = server.get("/workspace").json["key"]
        body = b'{"state": "accepted"}'
        kind = {"content-type": "application/json"}
        answer = server.ask("PATCH", "/workspace/objects/1", body, {**kind, "mal-trt-work": first})
        assert answer.status == 412 and "other work" in answer.json["error"]
        assert server.get("/workspace", {"mal-trt-work": first}).status == 412
        assert server.get("/workspace/pictures/1").json["objects"][0]["state"] == "new"
        assert server.ask("PATCH", "/workspace/objects/1", body, {**kind, "mal-trt-work": own}).status == 200


def test_a_full_disk_is_told_as_what_may_pass(page: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Journal, *given: object, **more: object) -> None:
        with self._guard():
            raise sqlite3.OperationalError("database or disk is full")

    with page() as server:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "take", full)
            answer = send(server, "PATCH", "/objects/1", {"state": "accepted"})
        assert answer.status == 507 and "is the disk full?" in answer.json["error"]
        assert done(server, "PATCH", "/objects/1", {"state": "accepted"})["objects"][0]["state"] == "accepted"


def test_a_picture_that_cannot_be_read_is_not_led_to_again(serve_folder: Path, tmp_path: Path) -> None:
    from mal_trt.serve.settings import ServeSettings

    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"nothing")
    (folder / "b.png").write_bytes(png(blob_picture(30, 30)))
    settings = ServeSettings(
        serve_folder / "tiny.onnx", folder, workspace=tmp_path / "work", port=0, device="cpu", threads=1
    )
    with serving(settings) as server:
        assert server.get("/workspace/pictures?shown=unseen").json["ids"] == [1, 2]
        assert server.get("/workspace/pictures/1").status == 400
        assert server.get("/workspace/pictures?shown=unseen").json["ids"] == [2]
        assert server.get("/workspace/pictures/rows?ids=1").json["rows"][0]["problem"] == "not a picture"
    (folder / "a.png").write_bytes(png(blob_picture(30, 30)))
    with serving(settings) as server:
        assert server.get("/workspace/pictures?shown=unseen").json["ids"] == [1, 2]
