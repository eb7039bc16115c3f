"""The page's work over HTTP: what is opened, changed and exported."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from label_data import blob_picture
from mal_trt import Labeler, label
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle, run_lengths
from serving import Server, png
from workspace_page import DOCUMENT, RECORDS, Opened, done, drawn, exported, send


def test_boxes_nobody_touched_are_exported_as_label_writes_them(
    page: Opened, serve_folder: Path, tmp_path: Path
) -> None:
    with page() as server:
        drawn(server)
        about, coco = exported(server, "coco")
        _, polygons = exported(server, "yolo")
        notes = server.get("/workspace").json["notes"]
    pictures, model = serve_folder / "pictures", serve_folder / "tiny.onnx"
    out = {form: tmp_path / f"labels.{form}" for form in ("coco", "yolo")}
    for form, path in out.items():
        label(pictures, tmp_path / "boxes.json", model, path, format=form, device="cpu", threads=1, progress=False)
    assert coco == out["coco"].read_bytes()
    with zipfile.ZipFile(io.BytesIO(polygons)) as archive:
        written = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    files = [path for path in out["yolo"].rglob("*") if path.is_file()]
    assert written == {path.relative_to(out["yolo"]).as_posix(): path.read_bytes() for path in files}
    assert about["written"] == 3 and about["left_out"] == about["undrawn"] == 0
    assert any("1 box cannot be used" in note for note in notes)
    skipped = json.loads((tmp_path / "work" / "boxes.skipped.json").read_text())
    assert [(entry["id"], entry["reason"]) for entry in skipped] == [(8, "bbox has no pixel inside the picture")]


def test_masks_equal_labelers_at_every_box_and_threshold(page: Opened, serve_folder: Path) -> None:
    picture = np.asarray(Image.open(serve_folder / "pictures" / "a.png"))
    box = [40.5, 30.25, 118.0, 79.0]
    with page() as server:
        now = done(server, "POST", "/pictures/1/objects", {"box": [-5, 3, 50, 44.5], "category": 2})
        made = now["made"]
        done(server, "PATCH", f"/objects/{made}", {"box": box})
        one = done(server, "PATCH", f"/objects/{made}", {"threshold": 0.61})["objects"][-1]
        tried = done(server, "POST", "/pictures/1/preview", {"box": box, "threshold": 0.2})
        drawn(server)
        _, coco = exported(server, "coco")
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1, threshold=0.61) as labeler:
        expected = labeler(picture, [box])
    assert (one["id"], one["box"], one["threshold"], one["category"]) == (made, box, 0.61, 2)
    assert {"size": [80, 120], "counts": one["counts"]} == expected.rle[0]
    assert one["score"] == expected.quality[0] and one["area"] == expected.areas[0]
    record = json.loads(coco)["annotations"][-1]
    assert record["segmentation"] == expected.rle[0]
    assert record["bbox"] == [40.5, 30.25, 77.5, 48.75] and record["category_id"] == 9 and record["id"] == 9
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1, threshold=0.2) as labeler:
        assert tried["counts"] == labeler(picture, [box]).rle[0]["counts"]


def test_what_was_done_is_there_after_a_restart(page: Opened) -> None:
    with page() as server:
        drawn(server)
        before = server.get("/workspace/pictures/1").json
        mask = decode_rle({"size": [80, 120], "counts": before["objects"][0]["counts"]}).full(80, 120)
        mask[40:60, 100:119] = True
        runs = run_lengths(encode_rle(LocalMask(0, 0, mask), 80, 120)).tolist()
        done(server, "PUT", "/objects/1/mask", {"counts": runs})
        done(server, "PATCH", "/objects/2", {"state": "rejected", "category": 1})
        done(server, "POST", "/pictures/2/accept", {})
        left = [server.get(f"/workspace/pictures/{id}").json for id in (1, 2)]
        file = exported(server, "coco")[1]
    with page() as server:
        assert [server.get(f"/workspace/pictures/{id}").json for id in (1, 2)] == left
        assert exported(server, "coco")[1] == file
        unseen = server.get("/workspace/pictures?shown=unseen").json["ids"]
        about, accepted = exported(server, "coco", accepted=True)
        for _ in range(2):
            done(server, "POST", "/pictures/1/undo", {})
        assert server.get("/workspace/pictures/1").json["objects"] == before["objects"]
        assert send(server, "POST", "/pictures/1/undo", {}).status == 409
    records = json.loads(file)["annotations"]
    assert [record["id"] for record in records] == [5, 7]
    assert np.array_equal(decode_rle(records[0]["segmentation"]).full(80, 120), mask)
    assert "quality" not in records[0] and records[0]["note"] == "kept" and records[0]["area"] == mask.sum()
    assert left[0]["objects"][0]["source"] == "brush" and left[0]["objects"][0]["score"] is None
    assert 1 in unseen and 2 not in unseen
    assert [record["id"] for record in json.loads(accepted)["annotations"]] == [7] and about["left_out"] == 2


def test_masks_of_the_file_stay_until_the_model_is_asked(page: Opened) -> None:
    square = encode_rle(LocalMask(10, 12, np.ones((9, 11), bool)), 80, 120)
    records = [{**RECORDS[0], "segmentation": square}, {**RECORDS[1], "segmentation": [[1, 1, 60, 1, 60, 60]]}]
    with page({**DOCUMENT, "annotations": records}) as server:
        drawn(server)
        first, second = server.get("/workspace/pictures/1").json["objects"]
        assert first["counts"] == square["counts"] and first["area"] == 99
        assert first["source"] == second["source"] == "file"
        again = done(server, "PATCH", "/objects/1", {"redraw": True})["objects"][0]
    assert again["source"] == "model" and again["counts"] != square["counts"] and again["score"] > 0


def test_a_brushed_mask_stays_when_its_box_moves(page: Opened) -> None:
    with page() as server:
        drawn(server)
        done(server, "PUT", "/objects/1/mask", {"counts": [80 * 120]})
        one = done(server, "PATCH", "/objects/1", {"box": [0, 0, 60, 60]})["objects"][0]
        assert one["box"] == [0, 0, 60, 60] and one["area"] == 0 and one["source"] == "brush"
        assert done(server, "PATCH", "/objects/1", {"redraw": True})["objects"][0]["area"] > 0


def test_a_change_that_is_sent_again_is_made_once(page: Opened) -> None:
    with page() as server:
        asked = {"box": [1, 1, 50, 50], "category": 1, "token": "0123456789ab"}
        first = done(server, "POST", "/pictures/1/objects", asked)
        second = done(server, "POST", "/pictures/1/objects", asked)
        assert second["objects"] == first["objects"] and len(first["objects"]) == 3


def test_lists_are_filtered_sorted_and_found(page: Opened) -> None:
    with page() as server:
        drawn(server)
        rows = server.get("/workspace/pictures/rows?ids=2,1,3,99").json["rows"]
        assert [(row["id"], row["name"], row["objects"]) for row in rows] == [
            (2, "sub/b.png", 1),
            (1, "a.png", 2),
            (3, "missing.png", 0),
        ]
        assert "missing" in rows[2]["problem"] and rows[0]["unseen"] and not rows[0]["problem"]
        assert rows[1]["worst"] == min(one["score"] for one in server.get("/workspace/pictures/1").json["objects"])
        worst = {row["id"]: row["worst"] for row in rows if row["worst"] is not None}
        by_quality = server.get("/workspace/pictures?sort=quality").json["ids"]
        assert by_quality == [*sorted(worst, key=lambda id: worst[id]), 3]
        assert server.get("/workspace/pictures?search=B.PNG").json["ids"] == [2]
        assert server.get("/workspace/pictures?search=%25").json["ids"] == []
        body = png(blob_picture(20, 20))
        server.ask("POST", "/workspace/uploads?name=%C3%84pfel.png", body)
        for typed in ("%C3%A4pfel", "A%CC%88PFEL"):  # another case; the accent as a letter of its own
            assert server.get(f"/workspace/pictures?search={typed}").json["ids"] == [4]
        done(server, "PATCH", "/objects/3", {"state": "accepted"})
        assert server.get("/workspace/pictures?shown=unseen").json["ids"] == [1, 4]


def test_an_export_waits_for_masks(page: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from mal_trt.serve import desk

    monkeypatch.setattr(desk.Desk, "draw_on", lambda self: None)
    with page() as server:
        answer = send(server, "POST", "/exports", {"format": "coco"})
        assert answer.status == 409 and "masks of 3 boxes are still being drawn" in answer.json["error"]
        assert answer.headers["retry-after"] == "2"


def test_masks_are_drawn_while_nobody_asks(page: Opened) -> None:
    with page() as server:
        until = time.monotonic() + 30
        while server.get("/workspace").json["undrawn"] and time.monotonic() < until:
            time.sleep(0.05)
        assert all(one["counts"] for id in (1, 2) for one in server.get(f"/workspace/pictures/{id}").json["objects"])


def test_the_page_is_whole_and_names_nothing_elsewhere(server: Server) -> None:
    index = server.get("/")
    assert index.status == 200 and "script-src 'self'" in index.headers["content-security-policy"]
    text = index.body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|https?://", text)
    seen, todo = set(), re.findall(r'(?:src|href)="(static/[\w.-]+)"', text)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = server.get(f"/{path}")
        assert answer.status == 200, path
        source = answer.body.decode()
        assert "innerHTML" not in source and "eval(" not in source and "document.write" not in source
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source), path
        todo += [f"static/{name}" for name in re.findall(r'(?:from|import) "\./([\w.-]+)"', source)]
    files = Path(__file__).parents[2] / "mal_trt" / "serve" / "static"
    others = {"index.html", "reference.css"}  # itself, and what the interface's page has
    assert {path.removeprefix("static/") for path in seen} == {path.name for path in files.iterdir()} - others


def test_the_revision_changes_with_the_work_alone(page: Opened) -> None:
    with page() as server:
        drawn(server)
        revisions = [server.get("/workspace/revision").json["revision"] for _ in range(2)]
        step = server.get("/workspace/pictures/1").json["step"]
        assert revisions[0] == revisions[1] == server.get("/workspace").json["revision"]
        assert done(server, "POST", "/pictures/1/accept", {})["step"] > step == 0
        assert server.get("/workspace/revision").json["revision"] > revisions[0]
