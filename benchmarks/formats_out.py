"""What each format keeps of masks: a label file converted to it, read back as people's tools read it, and compared.

    python benchmarks/formats_out.py labels.json [--simplify 1] [--json FILE]

labels.json: COCO labels with masks, such as `mal-trt label` writes. Read with pycocotools (COCO, Parquet), OpenCV's
fillPoly on whole pixels (YOLO), Pillow (LabelMe, VOC, PNG), shapely (GeoJSON), datumaro (CVAT) and Label Studio's SDK,
each where it is installed. Of several masks over one pixel VOC and PNG
hold one.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from common import save
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from mal_trt.labelling.convert import convert
from mal_trt.writers.formats import FORMATS
from mal_trt.writers.losses import describe

Masks = dict[str, list[np.ndarray]]  # of each picture, by its name without its ending
Sizes = dict[str, tuple[int, int]]


def exact(path: Path) -> tuple[Masks, Sizes]:
    document = json.loads(path.read_text())
    stems = {i["id"]: Path(i["file_name"]).with_suffix("").as_posix() for i in document["images"]}
    masks: Masks = {stem: [] for stem in stems.values()}
    for record in document["annotations"]:
        masks[stems[record["image_id"]]].append(coco.decode(record["segmentation"]).astype(bool))
    return masks, {stems[i["id"]]: (i["height"], i["width"]) for i in document["images"]}


def from_coco(path: Path, sizes: Sizes) -> Masks:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        reader = COCO(path)
    masks: Masks = {stem: [] for stem in sizes}
    for record in reader.anns.values():
        stem = Path(reader.imgs[record["image_id"]]["file_name"]).with_suffix("").as_posix()
        masks[stem].append(reader.annToMask(record).astype(bool))
    return masks


def from_yolo(path: Path, sizes: Sizes) -> Masks:
    import cv2

    def mask(line: str, height: int, width: int) -> np.ndarray:
        points = np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)
        return cv2.fillPoly(np.zeros((height, width), np.uint8), [points.astype(np.int32)], 1).astype(bool)

    return {s: [mask(line, *size) for line in _text(path / f"{s}.txt").splitlines()] for s, size in sizes.items()}


def from_labelme(path: Path, sizes: Sizes) -> Masks:
    masks: Masks = {}
    for stem, (height, width) in sizes.items():
        text = _text(path / f"{stem}.json")
        shapes = enumerate(json.loads(text)["shapes"] if text else [])
        masks[stem] = []
        for _, group in groupby(shapes, lambda s: s[1]["group_id"] or -s[0] - 1):
            whole = np.zeros((height, width), bool)
            for _, shape in group:
                image = Image.new("L", (width, height))
                ImageDraw.Draw(image).polygon([tuple(p) for p in shape["points"]], outline=1, fill=1)
                whole |= np.asarray(image).astype(bool)
            masks[stem].append(whole)
    return masks


def from_geojson(path: Path, sizes: Sizes) -> Masks:
    import shapely
    from shapely.geometry import shape

    masks: Masks = {}
    for stem, (height, width) in sizes.items():
        text = _text(path / f"{stem}.geojson")
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        features = json.loads(text)["features"] if text else []
        masks[stem] = [shapely.contains_xy(shape(feature["geometry"]), x, y) for feature in features]
    return masks


def from_cvat(path: Path, sizes: Sizes) -> Masks:
    """By datumaro, which wants the pictures there: empty ones do."""
    from datumaro.components.dataset import Dataset

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "annotations.xml").write_bytes(path.read_bytes())
        for element in ElementTree.parse(path).getroot().iter("image"):
            picture = Path(folder) / "images" / str(element.get("name"))
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (int(str(element.get("width"))), int(str(element.get("height"))))).save(picture)
        masks: Masks = {stem: [] for stem in sizes}
        for item in Dataset.import_from(folder, "cvat"):
            stem = item.id if item.id in masks else Path(item.id).stem
            masks[stem] = [_drawn(group, *sizes[stem]) for group in _instances(item.annotations)]
    return masks


def _instances(annotations: Any) -> Iterator[list[Any]]:
    numbered = enumerate(annotations)
    for _, group in groupby(numbered, lambda a: a[1].group or -a[0] - 1):
        yield [one for _, one in group]


def _drawn(group: list[Any], height: int, width: int) -> np.ndarray:
    if group[0].type.name == "mask":
        return np.asarray(group[0].image).astype(bool)
    rle = coco.merge(coco.frPyObjects([one.points for one in group], height, width))
    return coco.decode(rle).astype(bool)


def from_label_studio(path: Path, sizes: Sizes) -> Masks:
    from label_studio_sdk.converter.brush import decode_rle

    masks: Masks = {stem: [] for stem in sizes}
    for task in json.loads(path.read_text()):
        stem = Path(task["data"]["image"]).with_suffix("").as_posix()
        height, width = sizes[stem]
        regions = task["predictions"][0]["result"]
        for _, group in groupby(regions, lambda r: r["id"].split("-")[0]):
            values = [region["value"] for region in group]
            if "rle" in values[0]:
                mask = decode_rle(values[0]["rle"]).reshape(height, width, 4)[..., 3] > 0
            else:
                lines = [(np.array(v["points"]) / 100 * (width, height)).reshape(-1).tolist() for v in values]
                mask = coco.decode(coco.merge(coco.frPyObjects(lines, height, width))).astype(bool)
            masks[stem].append(mask)
    return masks


def from_parquet(path: Path, sizes: Sizes) -> Masks:
    from pyarrow import parquet

    masks: Masks = {stem: [] for stem in sizes}
    for row in parquet.read_table(path).to_pylist():
        rle = {"size": [row["height"], row["width"]], "counts": row["counts"].encode()}
        masks[Path(row["file_name"]).with_suffix("").as_posix()].append(coco.decode(rle).astype(bool))
    return masks


def _values(folder: Path, sizes: Sizes) -> Masks:
    masks: Masks = {}
    for stem in sizes:
        place = folder / f"{stem}.png"
        values = np.asarray(Image.open(place)) if place.exists() else np.zeros(sizes[stem], np.uint8)
        masks[stem] = [values == number for number in range(1, int(values.max()) + 1)]
    return masks


def from_png(path: Path, sizes: Sizes) -> Masks:
    found = _values(path, sizes)
    with open(path / "instances.csv", newline="") as file:
        for row in csv.DictReader(file):
            stem = Path(row["file"]).with_suffix("").as_posix()
            while len(found[stem]) < int(row["value"]):  # the last ones are hidden altogether
                found[stem].append(np.zeros(sizes[stem], bool))
    return found


READERS: dict[str, tuple[str, Callable[[Path, Sizes], Masks]]] = {
    "coco": ("pycocotools", from_coco),
    "coco-polygons": ("pycocotools", from_coco),
    "yolo": ("cv2.fillPoly on whole pixels", from_yolo),
    "labelme": ("Pillow, as LabelMe draws", from_labelme),
    "voc": ("Pillow", lambda path, sizes: _values(path / "SegmentationObject", sizes)),
    "png-instance": ("Pillow", from_png),
    "cvat": ("datumaro", from_cvat),
    "label-studio": ("label-studio-sdk", from_label_studio),
    "parquet": ("pyarrow, pycocotools", from_parquet),
    "geojson": ("shapely", from_geojson),
}


def compared(masks: Masks, found: Masks) -> dict[str, Any]:
    ious = []
    for stem, wanted in masks.items():
        got = found[stem] + [np.zeros_like(mask) for mask in wanted[len(found[stem]) :]]
        if len(got) > len(wanted):
            raise SystemExit(f"error: {stem}: {len(got)} masks read, {len(wanted)} written")
        ious += [(a & b).sum() / max(1, (a | b).sum()) for a, b in zip(wanted, got, strict=True)]
    return {"masks": len(ious), "iou_mean": round(float(np.mean(ious)), 4), "iou_worst": round(float(min(ious)), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--simplify", type=float)
    parser.add_argument("--formats", default=",".join(READERS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    masks, sizes = exact(arguments.labels)
    rows: dict[str, Any] = {}
    for name in arguments.formats.split(","):
        reader, read = READERS[name]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / f"labels{FORMATS[name].ending}"
            began = time.perf_counter()
            done = convert(arguments.labels, out, name, simplify=arguments.simplify, progress=False)
            seconds = time.perf_counter() - began
            files = [out] if out.is_file() else [p for p in out.rglob("*") if p.is_file()]
            size = sum(file.stat().st_size for file in files)
            try:
                figures = compared(masks, read(out, sizes))
            except ImportError as error:
                print(f"{name:14} not read back: {error}")
                continue
        rows[name] = {
            "reader": reader,
            **figures,
            "bytes_per_mask": round(size / figures["masks"]),
            "seconds": round(seconds, 1),
            "losses": done.losses[name],
        }
        print(f"{name:14} {reader:30} IoU {figures['iou_mean']:.4f}, worst {figures['iou_worst']:.4f}")
        if line := describe(name, done.losses[name]):
            print(f"{'':14} {line}")
    save(arguments.json, {"labels": arguments.labels.name, "simplify": arguments.simplify, "formats": rows})


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    main()
