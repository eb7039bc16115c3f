"""Label Studio's ML backend: rectangles become brushes and polygons, and pictures come only from where they may."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mal_trt import Labeler
from mal_trt.geometry.fill import even_odd
from mal_trt.serve.label_studio_turns import RequestTurns
from mal_trt.serve.queues import Overloaded
from serving import Server, serving

BOXES = [[6, 10, 34, 30], [2, 2, 78, 78], [86, 50, 114, 70]]
BRUSH = """<View><Image name="img" value="$photo"/>
  <RectangleLabels name="box" toName="img"><Label value="blob"/><Label value="other"/></RectangleLabels>
  <BrushLabels name="mask" toName="img"><Label value="blob"/></BrushLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")
KEY = "0123456789abcdef"


def rectangle(box: list[float], key: str, label: str = "blob", **value: Any) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    sides = {"x": x0 / 1.2, "y": y0 / 0.8, "width": (x1 - x0) / 1.2, "height": (y1 - y0) / 0.8}
    return {
        "id": key,
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "img",
        "original_width": 120,
        "original_height": 80,
        "value": {**sides, "rotation": 0, "rectanglelabels": [label], **value},
    }


def task(photo: str, boxes: list[list[float]] = BOXES, number: int = 1) -> dict[str, Any]:
    result = [rectangle(box, f"r{place}") for place, box in enumerate(boxes)]
    return {"id": number, "data": {"photo": photo}, "annotations": [{"result": result}], "predictions": []}


def predicted(server: Server, *tasks: dict[str, Any], config: str = BRUSH, **more: Any) -> Any:
    answer = server.post_json("/predict", {"tasks": list(tasks), "label_config": config, "project": "1.2", **more})
    assert answer.status == 200, answer.body
    return answer.json["results"]


def unpacked(packed: list[int]) -> np.ndarray:
    """The values of a brush, by the description of its bit stream."""
    bits = np.unpackbits(np.array(packed, np.uint8))
    place = 0

    def number(count: int) -> int:
        nonlocal place
        place += count
        return int("".join(map(str, bits[place - count : place])), 2)

    total, width, sizes = number(32), number(5) + 1, []
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[np.ndarray] = []
    while sum(map(len, values)) < total:
        runs = number(1)
        length = number(sizes[number(2)]) + 1
        values.append(np.full(length, number(width)) if runs else np.array([number(width) for _ in range(length)]))
    return np.concatenate(values)


@pytest.fixture(scope="module")
def expected(serve_folder: Path) -> np.ndarray:
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1) as labeler:
        return labeler(serve_folder / "pictures" / "a.png", BOXES).masks


def test_health_and_setup(server: Server) -> None:
    assert server.get("/health").json["status"] == "UP"
    asked = {"project": "1.2", "schema": BRUSH, "hostname": "http://localhost:8080", "access_token": "x"}
    assert server.post_json("/setup", asked).json == {"model_version": "mal-trt tiny"}
    assert server.post_json("/webhook", {"action": "ANNOTATION_CREATED"}).status == 200


def test_rectangles_become_brushes_to_the_pixel(server: Server, expected: np.ndarray) -> None:
    (prediction,) = predicted(server, task("a.png"))
    assert [region["id"] for region in prediction["result"]] == ["mask-r0", "mask-r1", "mask-r2"]
    assert 0 < prediction["score"] <= 1
    for region, mask in zip(prediction["result"], expected, strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("mask", "img", "brushlabels")
        assert (region["original_width"], region["original_height"]) == (120, 80)
        assert region["value"]["brushlabels"] == ["blob"]
        rgba = unpacked(region["value"]["rle"]).reshape(80, 120, 4)
        np.testing.assert_array_equal(rgba, np.repeat(mask[:, :, None] * 255, 4, axis=2))


def test_label_studios_own_converter_reads_them(server: Server, expected: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    objects = pytest.importorskip("label_studio_sdk.label_interface.objects")
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    (prediction,) = predicted(server, task("a.png"))
    assert interface.LabelInterface(BRUSH).validate_prediction(prediction)
    assert len(objects.PredictionValue(**prediction).result) == len(BOXES)
    for region, mask in zip(prediction["result"], expected, strict=True):
        read = brush.decode_rle(region["value"]["rle"]).reshape(80, 120, 4)[:, :, 3]
        np.testing.assert_array_equal(read > 0, mask)
    (polygons,) = predicted(server, task("a.png"), config=POLYGON)
    assert interface.LabelInterface(POLYGON).validate_prediction(polygons)


def test_polygons_where_the_project_has_no_brush(server: Server, expected: np.ndarray) -> None:
    (prediction,) = predicted(server, task("a.png"), config=POLYGON)
    for place, mask in enumerate(expected):
        lines = [r["value"] for r in prediction["result"] if r["id"].startswith(f"mask-r{place}-")]
        assert lines and all(line["closed"] and line["polygonlabels"] == ["blob"] for line in lines)
        read = even_odd([np.array(line["points"]) * (1.2, 0.8) for line in lines], 80, 120)
        assert (read & mask).sum() / (read | mask).sum() > 0.9


def test_a_rectangle_just_drawn_comes_before_what_is_there(server: Server, expected: np.ndarray) -> None:
    drawn = {"context": {"result": [rectangle(BOXES[2], "new")]}}
    (prediction,) = predicted(server, task("a.png"), params=drawn)
    (region,) = prediction["result"]
    assert region["id"] == "mask-new"
    np.testing.assert_array_equal(unpacked(region["value"]["rle"])[3::4].reshape(80, 120) > 0, expected[2])


def test_predictions_and_drafts_have_boxes_too(server: Server) -> None:
    for kind in ("predictions", "drafts"):
        moved = {**task("a.png"), "annotations": [{"result": [], "was_cancelled": False}]}
        moved[kind] = [{"result": [rectangle(BOXES[0], "p")]}]
        assert [r["id"] for r in predicted(server, moved)[0]["result"]] == ["mask-p"]
    assert predicted(server, {"id": 1, "data": {"photo": "missing.png"}})[0]["result"] == []
    rotated = {**task("a.png"), "annotations": [{"result": [rectangle(BOXES[0], "r", rotation=30)]}]}
    assert predicted(server, rotated)[0]["result"] == []


def test_a_rectangle_turned_by_half_a_turn_lies_on_the_other_side_of_its_corner(
    server: Server, expected: np.ndarray
) -> None:
    x0, y0, x1, y1 = BOXES[0]
    at = rectangle([x1, y1, 2 * x1 - x0, 2 * y1 - y0], "r", rotation=180)
    (prediction,) = predicted(server, {**task("a.png"), "annotations": [{"result": [at]}]})
    (region,) = prediction["result"]
    np.testing.assert_array_equal(unpacked(region["value"]["rle"])[3::4].reshape(80, 120) > 0, expected[0])


def test_tasks_of_one_request_wait_for_each_other() -> None:
    """Large pictures, of which the queue holds two: what others ask is refused, the request itself is not."""

    class Small:
        held = 0

        async def masks(self, picture: Any, boxes: Any) -> list[Any]:
            if self.held == 2:
                raise Overloaded("there is no room for more")
            self.held += 1
            await asyncio.sleep(0.01)
            self.held -= 1
            return [picture]

    async def ask() -> list[Any]:
        network: Any = Small()
        together = RequestTurns(network)
        found = await asyncio.gather(*(together.masks(number, []) for number in range(7)))
        network.held = 2
        with pytest.raises(Overloaded):
            await together.masks(8, [])
        return found

    assert asyncio.run(ask()) == [[number] for number in range(7)]


def test_one_broken_task_of_many_leaves_the_others(server: Server) -> None:
    results = predicted(server, task("a.png"), task("missing.png"), task("sub/b.png"))
    assert [len(one["result"]) for one in results] == [3, 0, 3]


def test_sides_at_whole_pixels_stay_there(server: Server, serve_folder: Path) -> None:
    """In percent, 7 of 120 pixels is a little less than 7."""
    boxes = [[7.0, 7.0, float(x), float(y)] for x, y in ((29, 27), (58, 33), (113, 71))]
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1) as labeler:
        expected = labeler(serve_folder / "pictures" / "a.png", boxes)
    (prediction,) = predicted(server, task("a.png", boxes))
    for region, mask in zip(prediction["result"], expected, strict=True):
        np.testing.assert_array_equal(unpacked(region["value"]["rle"])[3::4].reshape(80, 120) > 0, mask)


def test_local_files_and_data_in_the_address(server: Server, serve_folder: Path, expected: np.ndarray) -> None:
    content = base64.b64encode((serve_folder / "pictures" / "a.png").read_bytes()).decode()
    first = predicted(server, task("a.png"))
    assert predicted(server, task("/data/local-files/?d=a.png")) == first
    assert predicted(server, task(f"data:image/png;base64,{content}")) == first


@contextmanager
def label_studio(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """What Label Studio does when a backend asks for an upload; its address, and what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/data/upload/elsewhere.png":
                self.send_response(302)
                self.send_header("Location", "http://localhost:9/secret")
                self.end_headers()
            elif self.headers["Authorization"] not in (f"Token {KEY}", "Bearer short"):
                self.send_error(401)
            elif self.path in files:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(files[self.path])
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/api/token/refresh" and body == b'{"refresh": "a.b.c"}'
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"access": "short"}')

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
        running.shutdown()


@pytest.mark.parametrize("key", [KEY, "a.b.c"], ids=["a token", "a personal access token"])
def test_uploads_are_fetched_with_the_token(server: Server, serve_folder: Path, key: str) -> None:
    file = (serve_folder / "pictures" / "a.png").read_bytes()
    files = {"/data/upload/1/ab-a.png": file, "/data/upload/1/large.png": b"a" * (2 << 20)}
    with label_studio(files) as (address, asked):
        settings = replace(server.settings, label_studio=address, label_studio_key=key)
        with serving(settings) as other:
            assert predicted(other, task("/data/upload/1/ab-a.png")) == predicted(server, task("a.png"))
            assert predicted(other, task(address + "/data/upload/1/ab-a.png"))[0]["result"]
            for photo, words in (
                ("/data/upload/1/missing.png", "404"),
                ("/data/upload/1/large.png", "limit"),
                ("/data/upload/elsewhere.png", "not fetched"),
                ("http://127.0.0.1:9/a.png", "not an address of"),
                ("//127.0.0.1:9/a.png", "not an address of"),
                (address.replace("127.0.0.1", "localhost") + "/data/upload/1/ab-a.png", "not an address of"),
                ("file:///etc/passwd", "not an address of"),
                ("s3://bucket/a.png", "not an address of"),
            ):
                answer = other.post_json("/predict", {"tasks": [task(photo)], "label_config": BRUSH})
                assert answer.status == 400 and words in answer.json["error"], answer.body
    assert not [path for path in asked if not path.startswith("/data/upload/")]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "tasks"),
        ({"tasks": [1], "label_config": BRUSH}, "tasks"),
        ({"tasks": []}, "label_config"),
        ({"tasks": [], "label_config": "<View>"}, "well-formed"),
        ({"tasks": [], "label_config": "<View><Image name='i' value='$i'/></View>"}, "BrushLabels"),
        ({"tasks": [], "label_config": "<View>" * 5000}, "XML"),
        ({"tasks": [], "label_config": '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>'}, "entities"),
        ({"tasks": [task("../outside.png")], "label_config": BRUSH}, "not the name"),
        ({"tasks": [task("/data/local-files/?d=../outside.png")], "label_config": BRUSH}, "not the name"),
        ({"tasks": [task("/data/local-files/")], "label_config": BRUSH}, "not the name"),
        ({"tasks": [task("/data/upload/1/a.png")], "label_config": BRUSH}, "--label-studio"),
        ({"tasks": [task("http://127.0.0.1:9/a.png")], "label_config": BRUSH}, "--label-studio"),
        ({"tasks": [task("data:image/png;base64,!!!")], "label_config": BRUSH}, "base64"),
        ({"tasks": [{**task("a.png"), "data": {}}], "label_config": BRUSH}, "photo"),
        ({"tasks": [task("a.png", [[5, 5, 5, 9]])], "label_config": BRUSH}, "r0"),
        ({"tasks": [task("a.png", [[5, 5, float("nan"), 9]])], "label_config": BRUSH}, "r0"),
        ({"tasks": [task("a.png", BOXES * 7)], "label_config": BRUSH}, "limit"),
    ],
)
def test_what_cannot_be_used_is_said(server: Server, document: dict[str, Any], words: str) -> None:
    answer = server.post_json("/predict", document)
    assert answer.status == 400 and words in answer.json["error"], answer.body
    assert predicted(server, task("a.png"))[0]["result"]


def test_a_body_that_is_no_object(server: Server) -> None:
    for body in (b"", b"[]", b"[" * 100_000, b"\xff"):
        assert server.ask("POST", "/predict", body, {"content-type": "application/json"}).status == 400
        assert server.ask("POST", "/setup", body, {"content-type": "application/json"}).status == 400
