"""The page's pictures over HTTP: uploaded, without boxes, and shown as they are read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from deep_pictures import deep_png
from label_data import blob_picture
from serving import png
from workspace_page import Opened, done, exported, send


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
    long = quote(chr(0x6F22) * 90) + ".png"  # more bytes than a file's name may have
    with page(None, images=False) as server:
        for name, content in (("turned.jpg", stream), (long, deep)):
            id = server.ask("POST", f"/workspace/uploads?name={name}", content.getvalue()).json["id"]
            answer = server.get(f"/workspace/pictures/{id}/file")
            image = Image.open(io.BytesIO(answer.body))
            assert image.size == (60, 40) and image.mode == "RGB" and image.getexif().get(0x0112) is None
            difference = np.abs(np.asarray(image).astype(int) - blob_picture(60, 40, 1)[:, :, :1])
            assert difference.mean() < 25, name
        grey = deep_png(np.full((40, 60, 3), 2048, np.uint16))  # of 12 bits: nearly black by the high byte alone
        id = server.ask("POST", "/workspace/uploads?name=colours.png", grey.getvalue()).json["id"]
        image = Image.open(io.BytesIO(server.get(f"/workspace/pictures/{id}/file").body))
        assert image.getpixel((30, 20)) == (128, 128, 128)
