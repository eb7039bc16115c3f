"""The page's work over HTTP: what is opened, changed, uploaded and exported, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from label_data import blob_picture
from mal_trt import Labeler, label
from mal_trt.base.errors import InputError
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, encode_rle, run_lengths
from serving import Answer, Server, png, serving

RECORDS = [
    {"id": 5, "image_id": 7, "category_id": 3, "bbox": [6, 10, 28, 20], "iscrowd": 0, "note": "kept"},
    {"id": 6, "image_id": 7, "category_id": 9, "bbox": [2, 2, 76, 76], "area": 1.0},
    {"id": 7, "image_id": 8, "category_id": 3, "bbox": [86, 50, 28, 20]},
    {"id": 8, "image_id": 8, "category_id": 3, "bbox": [500, 500, 20, 20]},
]
DOCUMENT = {
    "info": {"year": 2026},
    "images": [
        {"id": 7, "file_name": "a.png", "width": 120, "height": 80, "licence": 4},
        {"id": 8, "file_name": "sub/b.png", "width": 120, "height": 80},
        {"id": 9, "file_name": "missing.png", "width": 120, "height": 80},
    ],
    "annotations": RECORDS,
    "categories": [{"id": 3, "name": "blob", "supercategory": "x"}, {"id": 9, "name": "pair"}],
}
Opened = Callable[..., Any]


@pytest.fixture
def page(serve_folder: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A server with the tiny model on pictures and a workspace of its own; document: its boxes."""
    pictures = tmp_path_factory.mktemp("pictures")
    (pictures / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        shutil.copyfile(serve_folder / "pictures" / name, pictures / name)

    @contextmanager
    def open(document: Any = DOCUMENT, images: bool = True, **more: Any) -> Iterator[Server]:
        from mal_trt.serve.settings import Limits, ServeSettings

        boxes = None
        if document is not None:
            boxes = tmp_path / "boxes.json"
            boxes.write_text(json.dumps(document))
        settings = ServeSettings(
            model=serve_folder / "tiny.onnx",
            images=pictures if images else None,
            boxes=boxes,
            workspace=more.pop("workspace", tmp_path / "work"),
            port=0,
            device="cpu",
            threads=1,
            limits=Limits(body=1 << 20, pixels=100_000, head=1.0, body_seconds=1.0, idle=2, stalled=1.0),
            **more,
        )
        with serving(settings) as running:
            yield running

    return open


def send(server: Server, method: str, path: str, document: Any) -> Answer:
    return server.ask(method, f"/workspace{path}", json.dumps(document).encode(), {"content-type": "application/json"})


def done(server: Server, method: str, path: str, document: Any) -> Any:
    answer = send(server, method, path, document)
    assert answer.status in (200, 201), answer.body
    return answer.json


def drawn(server: Server) -> None:
    for picture in server.get("/workspace/pictures").json["ids"]:
        server.post_json(f"/workspace/pictures/{picture}/masks", {})
    assert server.get("/workspace").json["undrawn"] == 0


def exported(server: Server, format: str, **options: Any) -> tuple[Any, bytes]:
    about = done(server, "POST", "/exports", {"format": format, **options})
    answer = server.get(f"/workspace/exports/{about['number']}")
    assert answer.status == 200 and about["file"] in answer.headers["content-disposition"]
    assert len(answer.body) == about["bytes"]
    return about, answer.body


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
    assert any("1 boxes cannot be used" in note for note in notes)
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
        done(server, "PATCH", "/objects/3", {"state": "accepted"})
        assert server.get("/workspace/pictures?shown=unseen").json["ids"] == [1]


def test_pictures_without_boxes_uploads_and_classes(page: Opened, serve_folder: Path, tmp_path: Path) -> None:
    with page(None) as server:
        assert server.get("/workspace/pictures").json["ids"] == [1, 2]
        content = png(blob_picture(60, 50, 3))
        for name in ("../../evil.png", "C:\\x\\evil.png", "evil.jpg", "%2e%2e/\u202eevil.svg"):
            answer = server.ask("POST", f"/workspace/uploads?name={quote(name)}", content)
            assert answer.status == 201, answer.body
        names = [row["name"] for row in server.get("/workspace/pictures/rows?ids=3,4,5,6").json["rows"]]
        assert names == ["evil.png", "evil (2).png", "evil (3).png", "_evil.png"]
        number = done(server, "POST", "/categories", {"name": "  big \n cat "})["number"]
        assert done(server, "POST", "/categories", {"name": "big cat"})["number"] == number
        done(server, "PATCH", "/categories/1", {"name": "thing"})
        assert send(server, "PATCH", "/categories/1", {"name": "big cat"}).status == 400
        made = done(server, "POST", "/pictures/3/objects", {"box": [2, 2, 58, 48], "category": number})
        done(server, "POST", "/pictures/1/accept", {})
        answer = server.get("/workspace/pictures/3/file")
        assert answer.body == content and answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(server.get("/workspace/pictures/3/small").body)).size == (60, 50)
        coco = json.loads(exported(server, "coco")[1])
    assert coco["categories"] == [{"id": 1, "name": "thing"}, {"id": 2, "name": "big cat"}]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "evil.png"]
    (record,) = coco["annotations"]
    assert (record["image_id"], record["category_id"], record["bbox"]) == (2, 2, [2, 2, 56, 46])
    assert record["segmentation"]["counts"] == made["objects"][0]["counts"]
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert kept == sorted(f"work/uploads/{name}" for name in names)


def test_pictures_are_shown_as_they_are_read(page: Opened, serve_folder: Path, tmp_path: Path) -> None:
    turned = Image.fromarray(blob_picture(60, 40, 1))
    exif = turned.getexif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    turned.save(stream, "JPEG", exif=exif)
    deep = io.BytesIO()
    Image.fromarray(blob_picture(60, 40, 1)[:, :, 0].astype(np.uint16) * 256).save(deep, "PNG")
    with page(None, images=False) as server:
        for name, content in (("turned.jpg", stream.getvalue()), ("deep.png", deep.getvalue())):
            id = server.ask("POST", f"/workspace/uploads?name={name}", content).json["id"]
            answer = server.get(f"/workspace/pictures/{id}/file")
            image = Image.open(io.BytesIO(answer.body))
            assert image.size == (60, 40) and image.mode == "RGB" and image.getexif().get(0x0112) is None
            difference = np.abs(np.asarray(image).astype(int) - blob_picture(60, 40, 1)[:, :, :1])
            assert difference.mean() < 25, name


def test_links_do_not_lead_out_of_the_folder(page: Opened, tmp_path: Path, serve_folder: Path) -> None:
    from mal_trt.serve.settings import ServeSettings

    folder, secret = tmp_path / "photos", tmp_path / "secret.png"
    folder.mkdir()
    secret.write_bytes(png(blob_picture(30, 30)))
    (folder / "link.png").symlink_to(secret)
    (folder / "good.png").write_bytes(png(blob_picture(30, 30)))
    settings = ServeSettings(
        model=serve_folder / "tiny.onnx", images=folder, workspace=tmp_path / "w", port=0, device="cpu", threads=1
    )
    with serving(settings) as server:
        rows = server.get("/workspace/pictures/rows?ids=1,2").json["rows"]
        ids = {row["name"]: row["id"] for row in rows}
        assert server.get(f"/workspace/pictures/{ids['good.png']}/file").status == 200
        for path in ("", "/file", "/small"):
            answer = server.get(f"/workspace/pictures/{ids['link.png']}{path}")
            assert answer.status == 400 and "leads out of the folder" in answer.json["error"]


def test_other_boxes_or_pictures_do_not_go_into_begun_work(page: Opened, tmp_path: Path) -> None:
    with page() as server:
        assert server.get("/workspace").status == 200
    with pytest.raises(InputError, match="begun with other boxes"), page({**DOCUMENT, "annotations": []}):
        pass
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(InputError, match="cannot hold the output"), page(workspace=tmp_path / "blocked" / "x"):
        pass


BAD: list[tuple[str, str, Any]] = [
    ("GET", "/pictures/0", None),
    ("GET", "/pictures/99", None),
    ("GET", "/pictures/-1", None),
    ("GET", "/pictures/1e3", None),
    ("GET", "/pictures/%2e%2e%2fa.png", None),
    ("GET", "/pictures/99999999999999999999999", None),
    ("GET", "/pictures/..%2f..%2fetc%2fpasswd/file", None),
    ("GET", "/pictures/3/file", None),
    ("GET", "/pictures/rows?ids=", None),
    ("GET", "/pictures/rows?ids=1;drop", None),
    ("GET", "/pictures/rows?ids=" + ",".join("1" * 201), None),
    ("GET", "/pictures?sort=name;--", None),
    ("GET", "/pictures?shown=%00", None),
    ("GET", "/pictures?search=" + "x" * 300, None),
    ("GET", "/exports/1", None),
    ("GET", "/exports/..%2f..%2fjournal.sqlite", None),
    ("POST", "/pictures/1/objects", {}),
    ("POST", "/pictures/1/objects", []),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 1], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, "10"], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, float("nan")], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, float("inf")], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 1e300, 10], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [20, 20, 10, 10], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [500, 500, 600, 600], "category": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, 10], "category": 77}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, 10], "category": "1"}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, 10], "category": 1, "threshold": 1}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, 10], "category": 1, "state": "accepted"}),
    ("POST", "/pictures/1/objects", {"box": [0, 0, 10, 10], "category": 1, "token": "../../x"}),
    ("POST", "/pictures/99/objects", {"box": [0, 0, 10, 10], "category": 1}),
    ("POST", "/pictures/3/objects", {"box": [0, 0, 10, 10], "category": 1}),
    ("POST", "/pictures/1/preview", {"box": [0, 0, 10, 10], "threshold": -0.1}),
    ("POST", "/pictures/99/accept", {}),
    ("POST", "/pictures/1/redo", {}),
    ("POST", "/pictures/1/undo", {"n": 1}),
    ("PATCH", "/objects/99", {"state": "accepted"}),
    ("PATCH", "/objects/1", {"state": "good"}),
    ("PATCH", "/objects/1", {"category": 0}),
    ("PATCH", "/objects/1", {"category": 12}),
    ("PATCH", "/objects/1", {"counts": "11"}),
    ("DELETE", "/objects/99", None),
    ("PUT", "/objects/1/mask", {"counts": []}),
    ("PUT", "/objects/1/mask", {"counts": [9599]}),
    ("PUT", "/objects/1/mask", {"counts": [9601]}),
    ("PUT", "/objects/1/mask", {"counts": [-1, 9601]}),
    ("PUT", "/objects/1/mask", {"counts": [10, 0, 9590]}),
    ("PUT", "/objects/1/mask", {"counts": [1.5, 9598.5]}),
    ("PUT", "/objects/1/mask", {"counts": [2**62, 2**62]}),
    ("PUT", "/objects/1/mask", {"counts": "9600"}),
    ("POST", "/categories", {"name": ""}),
    ("POST", "/categories", {"name": " \n "}),
    ("POST", "/categories", {"name": "a\u0000b"}),
    ("POST", "/categories", {"name": "x" * 300}),
    ("PATCH", "/categories/99", {"name": "x"}),
    ("POST", "/exports", {"format": "docx"}),
    ("POST", "/exports", {"format": "../coco"}),
    ("POST", "/exports", {"format": "coco,yolo"}),
    ("POST", "/exports", {"format": "coco", "simplify": -1}),
    ("POST", "/exports", {"format": "coco", "accepted": True}),
    ("POST", "/uploads", None),
    ("POST", "/uploads?name=", None),
    ("POST", "/uploads?name=a.png", None),
]


def test_bad_requests_get_a_clear_answer_and_change_nothing(page: Opened) -> None:
    with page() as server:
        drawn(server)
        before = [server.get("/workspace").json, server.get("/workspace/pictures/1").json]
        for method, path, document in BAD:
            answer = send(server, method, path, document) if document is not None else None
            answer = answer or server.ask(method, f"/workspace{path}")
            assert 400 <= answer.status < 500, (method, path, document, answer.status, answer.body)
            if "json" in answer.headers.get("content-type", ""):
                text = answer.json["error"]
                assert isinstance(text, str) and text and "\n" not in text and "Traceback" not in text
        bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 40
        for content in (b"", b"<svg/>", b"GIF89a", bomb, png(blob_picture(400, 300)), png(blob_picture(60, 50))[:90]):
            answer = server.ask("POST", "/workspace/uploads?name=a.png", content)
            assert answer.status == 400, content[:20]
        elsewhere = {"origin": "https://example.com", "content-type": "application/json"}
        assert server.ask("POST", "/workspace/pictures/1/accept", b"{}", elsewhere).status == 403
        assert server.ask("POST", "/workspace/pictures/1/accept", b"{}", {"content-type": "text/plain"}).status == 422
        assert [server.get("/workspace").json, server.get("/workspace/pictures/1").json] == before


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
