"""The work of a page that `mal-trt serve` shows: the boxes it is opened with, and what its tests ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from serving import Answer, Server

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
