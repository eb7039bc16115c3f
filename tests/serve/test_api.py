"""Masks over HTTP are those of `Labeler`, in every form they can be asked for."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from mal_trt import Labeler
from serving import Server, serving

BOXES = [[6, 10, 34, 30], [2, 2, 78, 78], [86, 50, 114, 70], [-20, -20, 40, 40], [500, 500, 600, 600]]


@pytest.fixture(scope="module")
def labeler(serve_folder: Path) -> Iterator[Labeler]:
    with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1) as labeler:
        yield labeler


def test_a_form_a_json_body_and_a_name_give_labelers_masks(
    server: Server, labeler: Labeler, serve_folder: Path
) -> None:
    file = serve_folder / "pictures" / "a.png"
    expected = labeler(file, BOXES)
    asked: dict[str, Any] = {"boxes": BOXES, "box_format": "xyxy"}
    as_form = server.post_form("/v1/label", {"image": file.read_bytes(), **asked})
    image = base64.b64encode(file.read_bytes()).decode()
    for answer in (
        as_form,
        server.post_json("/v1/label", {"image": image, **asked}),
        server.post_json("/v1/label", {"image": "data:image/png;base64," + image, **asked}),
        server.post_json("/v1/label", {"picture": "a.png", **asked}),
        server.post_form("/v1/label", {"picture": "a.png", **asked}),
    ):
        assert answer.status == 200, answer.body
        assert (answer.json["width"], answer.json["height"]) == (120, 80)
        assert [mask["segmentation"] for mask in answer.json["masks"]] == expected.rle
        assert [mask["score"] for mask in answer.json["masks"]] == list(expected.quality)
        assert [mask["area"] for mask in answer.json["masks"]] == expected.areas.tolist()
    assert expected.areas[:3].min() > 100


def test_xywh_is_cocos(server: Server, labeler: Labeler, serve_folder: Path) -> None:
    boxes = [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in BOXES]
    answer = server.post_json("/v1/label", {"picture": "sub/b.png", "boxes": boxes, "box_format": "xywh"})
    expected = labeler(serve_folder / "pictures" / "sub" / "b.png", BOXES)
    assert [mask["segmentation"] for mask in answer.json["masks"]] == expected.rle


def test_the_boxes_must_say_their_format(server: Server) -> None:
    answer = server.post_json("/v1/label", {"picture": "a.png", "boxes": BOXES})
    assert answer.status == 400 and "box_format" in answer.json["error"]


def test_polygons_and_png_are_the_same_masks(server: Server, labeler: Labeler, serve_folder: Path) -> None:
    expected = labeler(serve_folder / "pictures" / "a.png", BOXES)
    asked = {"picture": "a.png", "boxes": BOXES, "box_format": "xyxy"}
    polygons = server.post_json("/v1/label", {**asked, "output": "polygons"}).json["masks"]
    pngs = server.post_json("/v1/label", {**asked, "output": "png"}).json["masks"]
    for wanted, polygon, window in zip(expected, polygons, pngs, strict=True):
        if not wanted.any():
            assert polygon["segmentation"] == [] and window["png"] is None
            continue
        np.testing.assert_array_equal(
            coco.decode(coco.merge(coco.frPyObjects(polygon["segmentation"], 80, 120))), wanted
        )
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(window["png"]))).convert("L")) > 0
        canvas = np.zeros((80, 120), bool)
        rows, columns = pixels.shape
        canvas[window["top"] : window["top"] + rows, window["left"] : window["left"] + columns] = pixels
        np.testing.assert_array_equal(canvas, wanted)
    simple = server.post_json("/v1/label", {**asked, "output": "polygons", "simplify": 2}).json["masks"]
    assert sum(len(m["segmentation"][0]) for m in simple[:4]) < sum(len(m["segmentation"][0]) for m in polygons[:4])


def test_another_threshold_is_labelers(server: Server, serve_folder: Path) -> None:
    asked = {"picture": "a.png", "boxes": BOXES, "box_format": "xyxy"}
    areas = []
    for threshold in (0.05, 0.5, 0.95):
        with Labeler(serve_folder / "tiny.onnx", device="cpu", threads=1, threshold=threshold) as labeler:
            expected = labeler(serve_folder / "pictures" / "a.png", BOXES)
        masks = server.post_json("/v1/label", {**asked, "threshold": threshold}).json["masks"]
        assert [mask["segmentation"] for mask in masks] == expected.rle
        assert [mask["score"] for mask in masks] == list(expected.quality)
        areas.append(sum(mask["area"] for mask in masks))
    assert areas[0] > areas[1] > areas[2]


def test_two_passes_are_labelers(serve_folder: Path) -> None:
    from mal_trt.serve.settings import ServeSettings

    boxes = [[x0 - 4, y0 - 4, x1 + 4, y1 + 4] for x0, y0, x1, y1 in BOXES]
    model, file = serve_folder / "tiny.onnx", serve_folder / "pictures" / "a.png"
    found = []
    for twice in (False, True):
        with Labeler(model, device="cpu", threads=1, second_pass=twice) as labeler:
            found.append(labeler(file, boxes).rle)
    assert found[0] != found[1]
    settings = ServeSettings(model=model, images=file.parent, device="cpu", threads=1, port=0, second_pass=True)
    asked = {"picture": "a.png", "boxes": boxes, "box_format": "xyxy"}
    with serving(settings) as server:
        masks = server.post_json("/v1/label", asked).json["masks"]
        assert [mask["segmentation"] for mask in masks] == found[1]
        # Another threshold changes the second mask alone, in its narrower box.
        low = server.post_json("/v1/label", {**asked, "threshold": 0.05}).json["masks"]
    assert all(more["area"] >= mask["area"] for more, mask in zip(low, masks, strict=True))


def test_no_boxes_no_masks(server: Server) -> None:
    answer = server.post_json("/v1/label", {"picture": "a.png", "boxes": [], "box_format": "xyxy"})
    assert answer.json == {"width": 120, "height": 80, "masks": []}


def test_many_clients_each_get_their_own(server: Server, labeler: Labeler, serve_folder: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [serve_folder / "pictures" / name for name in ("a.png", "sub/b.png")]
    requests = []
    for number in range(60):
        corner = rng.integers(0, 60, (1 + number % 5, 2))
        requests.append(
            (pictures[number % 2], np.hstack([corner, corner + rng.integers(4, 60, corner.shape)]).tolist())
        )
    expected = [labeler(path, boxes).rle for path, boxes in requests]

    def ask(request: tuple[Path, list[list[int]]]) -> Any:
        path, boxes = request
        fields = {"image": path.read_bytes(), "boxes": boxes, "box_format": "xyxy"}
        return [mask["segmentation"] for mask in server.post_form("/v1/label", fields).json["masks"]]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, requests)) == expected
    figures = server.get("/metrics").body.decode()
    assert 'mal_trt_requests_total{route="/v1/label",status="200"}' in figures


def test_the_bundled_model_gives_the_bytes_of_the_python_api() -> None:
    from mal_trt.serve.settings import ServeSettings

    root = resources.files("mal_trt.examples")
    document = json.loads((root / "boxes.json").read_text())
    name = "chelsea.jpg"
    (image,) = [image["id"] for image in document["images"] if image["file_name"] == name]
    boxes = [record["bbox"] for record in document["annotations"] if record["image_id"] == image]
    photo = (root / "photos" / name).read_bytes()
    with Labeler(device="cpu") as labeler:
        expected = labeler(Image.open(io.BytesIO(photo)), boxes, "xywh")
    with serving(ServeSettings(device="cpu", port=0)) as server:
        answer = server.post_form("/v1/label", {"image": photo, "boxes": boxes, "box_format": "xywh"})
        assert server.get("/v1/models").json[0]["name"] == "mal_lite0.onnx"
    assert [mask["segmentation"] for mask in answer.json["masks"]] == expected.rle
    assert [mask["score"] for mask in answer.json["masks"]] == list(expected.quality)
