"""The same three boxes as files of every format that is read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 80, 60
# Two pictures: (name, class, XYXY).
BOXES = [("a.png", "cat", (10, 20, 30, 50)), ("a.png", "dog", (0, 0, 80, 60)), ("b.png", "cat", (5, 6, 7, 9))]


def of(name: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [(kind, box) for picture, kind, box in BOXES if picture == name]


def write(path: Path, text: str | dict[str, Any] | list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")
    return path


def coco(folder: Path) -> Path:
    images = [{"id": name, "file_name": name, "width": WIDTH, "height": HEIGHT} for name in ("a.png", "b.png")]
    records = [
        {"id": n, "image_id": name, "category_id": kind, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for n, (name, kind, (x0, y0, x1, y1)) in enumerate(BOXES)
    ]
    kinds = [{"id": "cat", "name": "cat"}, {"id": "dog", "name": "dog"}]
    return write(folder / "boxes.json", {"images": images, "annotations": records, "categories": kinds})


def yolo(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        lines = []
        for kind, (a, b, c, d) in of(name):
            shares = ((a + c) / 2 / WIDTH, (b + d) / 2 / HEIGHT, (c - a) / WIDTH, (d - b) / HEIGHT)
            lines.append(" ".join(map(str, (["cat", "dog"].index(kind), *shares))))
        write(folder / f"{name[0]}.txt", "\n".join(lines))
    write(folder / "classes.txt", "cat\ndog\n")
    return folder


def voc(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        objects = "".join(
            f"<object><name>{k}</name><bndbox><xmin>{a + 1}</xmin><ymin>{b + 1}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
            "</bndbox></object>"
            for k, (a, b, c, d) in of(name)
        )
        write(folder / f"{name[0]}.xml", f"<annotation><filename>{name}</filename>{objects}</annotation>")
    return folder


def kitti(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        lines = [f"{k} 0 0 0 {a} {b} {c} {d} 0 0 0 0 0 0 0" for k, (a, b, c, d) in of(name)]
        write(
            folder / f"{name[0]}.txt", "\n".join([*lines, "DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10"])
        )
    return folder


def labelme(folder: Path) -> Path:
    for name in ("a.png", "b.png"):
        shapes = [
            {"label": k, "points": [[c, d], [a, b]], "shape_type": "rectangle"}
            if k == "cat"
            else {"label": k, "points": [[a, b], [c, b], [c, d], [a, d]], "shape_type": "polygon"}
            for k, (a, b, c, d) in of(name)
        ]
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\pictures\\{name}"}
        write(folder / f"{name[0]}.json", {**content, "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH})
    return folder


def png_instance(folder: Path) -> Path:
    rows = ["file,value,annotation_id,image,category_id,category,area,visible_area"]
    for name in ("a.png", "b.png"):
        drawn = np.zeros((HEIGHT, WIDTH), np.uint16)
        for value, (kind, (a, b, c, d)) in reversed(list(enumerate(of(name), 1))):
            drawn[b:d, a:c] = value
            rows.append(f"{name[0]}-masks.png,{value},7,{name},1,{kind},1,1")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(folder / f"{name[0]}-masks.png")
    return write(folder / "instances.csv", "\n".join([rows[0], rows[2], rows[1], rows[3]]))


def csv_pixels(folder: Path) -> Path:
    rows = [f"{name},{WIDTH},{HEIGHT},{k},{a},{b},{c},{d}" for name, k, (a, b, c, d) in BOXES]
    return write(folder / "boxes.csv", "\n".join(["filename,width,height,class,xmin,ymin,xmax,ymax", *rows]))


def csv_semicolons(folder: Path) -> Path:
    rows = [f"{name};{k};{a},0;{b},0;{c - a},0;{d - b},0" for name, k, (a, b, c, d) in BOXES]
    return write(folder / "boxes.csv", "\r\n".join(["\ufeffimage_id;label;x;y;w;h", *rows, ""]))


def csv_shares(folder: Path) -> Path:
    rows = [f"{n[0]}\tx\t{k}\t1\t{a / 80}\t{c / 80}\t{b / 60}\t{d / 60}" for n, k, (a, b, c, d) in BOXES]
    return write(folder / "b.tsv", "\n".join(["ImageID\tSource\tLabelName\tConfidence\tXMin\tXMax\tYMin\tYMax", *rows]))


def csv_lists(folder: Path) -> Path:
    rows = [f'{name[0]},{WIDTH},{HEIGHT},"[{a}, {b}, {c - a}, {d - b}]",{k}' for name, k, (a, b, c, d) in BOXES]
    return write(folder / "train.csv", "\n".join(["image_id,width,height,bbox,class", *rows]))


def csv_headless(folder: Path) -> Path:
    return write(
        folder / "b.csv", "\n".join(f"x/{n},{a},{b},{c},{d},{k}" for n, k, (a, b, c, d) in BOXES) + "\nb.png,,,,,"
    )


def cvat(folder: Path) -> Path:
    images = ""
    for number, name in enumerate(("a.png", "b.png")):
        shapes = "".join(
            f'<box label="{k}" source="manual" occluded="0" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}" z_order="0"></box>'
            for k, (a, b, c, d) in of(name)
        )
        images += f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
    text = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta/>{images}</annotations>'
    return write(folder / "annotations.xml", text)


def label_studio(folder: Path) -> Path:
    tasks = []
    for name in ("a.png", "b.png"):
        result = [
            {
                **{"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "type": "rectanglelabels"},
                "value": {
                    **{"x": 100 * a / WIDTH, "y": 100 * b / HEIGHT, "rotation": 0, "rectanglelabels": [k]},
                    **{"width": 100 * (c - a) / WIDTH, "height": 100 * (d - b) / HEIGHT},
                },
            }
            for k, (a, b, c, d) in of(name)
        ]
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
        tasks.append({"id": 1, "annotations": [{"result": result, "was_cancelled": False}], "data": data})
    return write(folder / "export.json", tasks)


def label_studio_min(folder: Path) -> Path:
    tasks = []
    for name in ("a.png", "b.png"):
        regions = [
            {
                **{"x": 100 * a / WIDTH, "y": 100 * b / HEIGHT, "rotation": 0, "rectanglelabels": [k]},
                **{"width": 100 * (c - a) / WIDTH, "height": 100 * (d - b) / HEIGHT},
                **{"original_width": WIDTH, "original_height": HEIGHT},
            }
            for k, (a, b, c, d) in of(name)
        ]
        tasks.append({"image": f"/data/local-files/?d=set/{name}", "id": 1, "label": regions, "annotator": 1})
    return write(folder / "export.json", tasks)


def via(folder: Path) -> Path:
    entries = {}
    for name in ("a.png", "b.png"):
        regions = [
            {
                "shape_attributes": {"name": "rect", "x": a, "y": b, "width": c - a, "height": d - b},
                "region_attributes": {"quality": {"good": True}, "class": k},
            }
            for k, (a, b, c, d) in of(name)
        ]
        entries[f"{name}123"] = {"filename": name, "size": 123, "regions": regions, "file_attributes": {}}
    return write(
        folder / "via.json", {"_via_settings": {"ui": {}}, "_via_img_metadata": entries, "_via_attributes": {}}
    )


def via_old(folder: Path) -> Path:
    project = json.loads(via(folder).read_text())["_via_img_metadata"]
    for entry in project.values():
        entry["regions"] = {str(n): region for n, region in enumerate(entry["regions"])}
    return write(folder / "via.json", project)


def via_csv(folder: Path) -> Path:
    lines = ["#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
    for number, (name, kind, (a, b, c, d)) in enumerate(BOXES):
        shape = {"name": "rect", "x": a, "y": b, "width": c - a, "height": d - b}
        cells = [json.dumps(cell).replace('"', '""') for cell in (shape, {"class": kind})]
        lines.append(f'{name},1,"{{}}",2,{number},"{cells[0]}","{cells[1]}"')
    return write(folder / "via.csv", "\n".join(lines))


def via_3(folder: Path) -> Path:
    metadata = {
        f"{n}_x": {"vid": "1" if name == "a.png" else "2", "xy": [2, a, b, c - a, d - b], "av": {"1": kind}}
        for n, (name, kind, (a, b, c, d)) in enumerate(BOXES)
    }
    files = {"1": {"fid": "1", "fname": "a.png"}, "2": {"fid": "2", "fname": "b.png"}}
    content = {"project": {"pid": "x"}, "config": {}, "attribute": {}, "file": files, "metadata": metadata}
    return write(folder / "via.json", {**content, "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}}})


def parquet(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"image": [n for n, _, _ in BOXES], "label": [k for _, k, _ in BOXES], "other": [1, 2, 3]}
    columns["bbox"] = [[float(a), float(b), float(c - a), float(d - b)] for _, _, (a, b, c, d) in BOXES]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "boxes.parquet")
    return folder / "boxes.parquet"


def parquet_nested(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    boxes = [
        [[float(a), float(b), float(c - a), float(d - b)] for _, (a, b, c, d) in of(n)] for n in ("a.png", "b.png")
    ]
    objects = [{"bbox": b, "category": [k for k, _ in of(n)]} for n, b in zip(("a.png", "b.png"), boxes, strict=True)]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "objects": objects}), folder / "boxes.parquet")
    return folder / "boxes.parquet"


def webdataset(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "boxes.tar", "w") as archive:
        for name in ("a.png", "b.png"):
            boxes = [[a, b, c - a, d - b] for _, (a, b, c, d) in of(name)]
            text = {"width": WIDTH, "height": HEIGHT, "boxes": boxes, "labels": [k for k, _ in of(name)]}
            for member, data in ((name, png(WIDTH, HEIGHT)), (f"{name[0]}.json", json.dumps(text).encode())):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return folder / "boxes.tar"


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "PNG")
    return stream.getvalue()


WRITERS: dict[str, list[Callable[[Path], Path]]] = {
    "coco": [coco],
    "csv": [csv_pixels, csv_semicolons, csv_shares, csv_lists, csv_headless],
    "cvat": [cvat],
    "kitti": [kitti],
    "label-studio": [label_studio, label_studio_min],
    "labelme": [labelme],
    "parquet": [parquet, parquet_nested],
    "png-instance": [png_instance],
    "via": [via, via_old, via_csv, via_3],
    "voc": [voc],
    "webdataset": [webdataset],
    "yolo": [yolo],
}
