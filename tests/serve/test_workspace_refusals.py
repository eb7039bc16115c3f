"""What the page's work over HTTP refuses, and that nothing is changed by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from label_data import blob_picture
from mal_trt.base.errors import InputError
from serving import png, serving
from workspace_page import DOCUMENT, Opened, drawn, send


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
