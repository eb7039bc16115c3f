"""Every format, read back: by the libraries that people read it with, or as they do."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from label_sets import HEIGHT, WIDTH, MaskSet, masks, pictures_of_masks
from mal_trt.base.errors import InputError, RunError
from mal_trt.writers.formats import FORMATS, chosen, ending, write_formats
from mal_trt.writers.label_studio import brush
from mal_trt.writers.losses import FormatLoss, describe
from mal_trt.writers.options import Options

often = settings(max_examples=40, deadline=None)


@contextmanager
def written(labels: MaskSet, name: str, **options: Any) -> Iterator[tuple[Path, FormatLoss]]:
    counted: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"labels{FORMATS[name].ending}"
        losses = write_formats(labels, (name,), path, Options(**options), counted.append)
        assert sum(counted) == sum(map(len, labels.masks))
        yield path, losses[name]


def cleared(folder: Path, *left_out: str) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - set(left_out)


@given(pictures_of_masks, st.sampled_from(["coco", "coco-polygons"]))
@often
def test_coco_read_by_pycocotools(all_masks: list[list[np.ndarray]], name: str) -> None:
    from pycocotools.coco import COCO

    labels = MaskSet(all_masks)
    with written(labels, name) as (path, losses):
        document = json.loads(path.read_text())
        for record in document["annotations"]:
            assert record["score"] == 0.5 and record["iscrowd"] == 0
        assert [i["file_name"] for i in document["images"]] == ["a.jpg", "b/b.jpg"][: len(all_masks)]
        reader = COCO(path)
    exact = [mask for of_picture in all_masks for mask in of_picture]
    for number, mask in enumerate(exact, 1):
        if mask.any():
            assert np.array_equal(reader.annToMask(reader.anns[number]), mask)
            assert reader.anns[number]["area"] == mask.sum()
    empty = sum(not mask.any() for mask in exact)
    assert losses.figures().get("empty", 0) == (empty if name == "coco-polygons" else 0)
    assert losses.iou_worst == 1 and losses.wrong_pixels == 0


def fill_poly(line: np.ndarray) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    return cv2.fillPoly(np.zeros((HEIGHT, WIDTH), np.uint8), [line.astype(np.int32)], 1).astype(bool)


@given(pictures_of_masks)
@often
def test_yolo_as_training_tools_fill_it(all_masks: list[list[np.ndarray]]) -> None:
    """Times the picture's size, to whole pixels, cv2.fillPoly; what that loses is what the writer says."""
    with written(MaskSet(all_masks), "yolo") as (path, losses):
        assert (path / "classes.txt").read_text() == "tall & <wide>\ncup\n"
        assert cleared(path, "classes.txt") == {"a.txt", "b/b.txt"} if len(all_masks) == 2 else {"a.txt"}
        texts = [(path / name).read_text().splitlines() for name in ("a.txt", "b/b.txt")[: len(all_masks)]]
    wrong = 0
    for lines, of_picture in zip(texts, all_masks, strict=True):
        solid = [mask for mask in of_picture if mask.any()]
        assert len(lines) == len(solid)
        for line, mask in zip(lines, solid, strict=True):
            shares = np.array([float(word) for word in line.split()[1:]]).reshape(-1, 2)
            assert len(shares) >= 3 and shares.min() >= 0 and shares.max() <= 1
            points = shares * (WIDTH, HEIGHT)
            assert np.array_equal(np.trunc(points), np.round(points)), "readers that round see the same"
            wrong += int((fill_poly(points) ^ mask).sum())
    # Bridges between parts may touch a pixel here that they do not touch there.
    assert abs(wrong - losses.wrong_pixels) <= 4 * sum(map(len, texts))
    assert losses.masks == sum(map(len, texts))


def test_yolo_read_by_supervision(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision")
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:9, 3:10] = True
    mask[4:6, 5:7] = False
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{name}.jpg")
    write_formats(MaskSet([[mask]]), ("yolo",), tmp_path / "labels", Options(), lambda _: None)
    (tmp_path / "labels" / "b.txt").write_text("")
    (tmp_path / "data.yaml").write_text("names: [tall, cup]\n")
    found = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml"), force_masks=True
    )
    detections = found.annotations[str(tmp_path / "images" / "a.jpg")]
    assert detections.class_id.tolist() == [0]
    assert np.array_equal(detections.mask[0], mask)


def dents(mask: np.ndarray) -> np.ndarray:
    """Pixels outside a mask that three or four of their neighbours close in; bool [H,W]."""
    around = np.pad(mask, 1).astype(int)
    closed: np.ndarray = ~mask & (around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] >= 3)
    return closed


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 11, reason="this Pillow closes dents of more than a pixel")
@given(pictures_of_masks)
@often
def test_labelme_as_it_draws_polygons(all_masks: list[list[np.ndarray]]) -> None:
    with written(MaskSet(all_masks), "labelme") as (path, losses):
        for place, of_picture in enumerate(all_masks):
            document = json.loads((path / ("b/b.json" if place else "a.json")).read_text())
            assert document["imagePath"] == ("b.jpg" if place else "a.jpg") and document["imageData"] is None
            assert (document["imageHeight"], document["imageWidth"]) == (HEIGHT, WIDTH)
            solid = [mask for mask in of_picture if mask.any()]
            shapes = enumerate(document["shapes"])
            groups = [list(group) for _, group in groupby(shapes, lambda s: s[1]["group_id"] or -s[0] - 1)]
            assert len(groups) == len(solid)
            for mask, group in zip(solid, groups, strict=True):
                drawn = np.zeros((HEIGHT, WIDTH), bool)
                for _, shape in group:
                    own = Image.new("L", (WIDTH, HEIGHT))
                    ImageDraw.Draw(own).polygon([tuple(p) for p in shape["points"]], outline=1, fill=1)
                    drawn |= np.asarray(own).astype(bool)
                # Pillow's own fill may close a dent of a single pixel, and leaves out a pixel of a hole here and there.
                assert ((drawn ^ mask) & ~dents(mask)).sum() <= 2
    assert losses.iou_worst == 1


@given(pictures_of_masks)
@often
def test_png_and_voc_hold_each_pixels_top_mask(all_masks: list[list[np.ndarray]]) -> None:
    labels = MaskSet(all_masks)
    tops = []
    for of_picture in all_masks:
        top = np.zeros((HEIGHT, WIDTH), int)
        for i in sorted(range(len(of_picture)), key=lambda i: -of_picture[i].sum()):
            top[of_picture[i]] = i + 1
        tops.append(top)
    names = ["a", "b/b"][: len(all_masks)]
    numbers: list[np.ndarray] = []
    count = 0
    for of_picture in all_masks:
        numbers.append(np.array([0, *((1 if (count + i) % 2 == 0 else 2) for i in range(len(of_picture)))]))
        count += len(of_picture)
    with written(labels, "png-instance") as (path, losses):
        for name, top in zip(names, tops, strict=True):
            assert np.array_equal(np.asarray(Image.open(path / f"{name}.png")), top)
        with open(path / "instances.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["annotation_id"]) for row in rows] == list(range(1, count + 1))
        everything = [mask for of_picture in all_masks for mask in of_picture]
        assert [int(row["area"]) for row in rows] == [int(mask.sum()) for mask in everything]
        assert losses.hidden_pixels == sum(int(row["area"]) - int(row["visible_area"]) for row in rows)
    with written(labels, "png-semantic") as (path, _):
        for name, top, number in zip(names, tops, numbers, strict=True):
            image = Image.open(path / f"{name}.png")
            assert image.mode == "P" and np.array_equal(np.asarray(image), number[top])
        assert (path / "classes.csv").read_text().splitlines()[1:] == ["0,,background", "1,9,tall & <wide>", "2,3,cup"]
    with written(labels, "voc") as (path, _):
        for name, top, number in zip(names, tops, numbers, strict=True):
            assert np.array_equal(np.asarray(Image.open(path / "SegmentationObject" / f"{name}.png")), top)
            assert np.array_equal(np.asarray(Image.open(path / "SegmentationClass" / f"{name}.png")), number[top])
            root = ElementTree.parse(path / "Annotations" / f"{name}.xml").getroot()
            assert len(root.findall("object")) == len(number) - 1
        assert (path / "ImageSets/Segmentation/default.txt").read_text().split() == names


@given(pictures_of_masks)
@often
def test_cvat_masks(all_masks: list[list[np.ndarray]]) -> None:
    with written(MaskSet(all_masks), "cvat") as (path, _):
        root = ElementTree.parse(path).getroot()
    assert root.findtext("version") == "1.1"
    assert [e.text for e in root.findall("meta/task/labels/label/name")] == ["tall & <wide>", "cup"]
    images = root.findall("image")
    assert [i.get("name") for i in images] == ["a.jpg", "b/b.jpg"][: len(all_masks)]
    for image, of_picture in zip(images, all_masks, strict=True):
        found = image.findall("mask")
        for element, mask in zip(found, [m for m in of_picture if m.any()], strict=True):
            x, y, w, h = (int(element.get(key) or "") for key in ("left", "top", "width", "height"))
            runs = [int(word) for word in (element.get("rle") or "").split(",")]
            values = np.repeat(np.arange(len(runs)) % 2, runs).reshape(h, w).astype(bool)
            whole = np.zeros((HEIGHT, WIDTH), bool)
            whole[y : y + h, x : x + w] = values
            assert np.array_equal(whole, mask)


def unpacked(data: list[int]) -> np.ndarray:
    """Label Studio's brush, by the plain reading of its bit stream."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if repeated else [take(word) for _ in range(length)]
    return np.array(values)


@given(masks)
@often
def test_label_studio_brush(mask: np.ndarray) -> None:
    assert np.array_equal(unpacked(brush(mask)), np.repeat(mask.reshape(-1) * 255, 4))


def test_label_studio_brush_of_a_large_picture() -> None:
    mask = np.zeros((300, 400), bool)
    mask[20:280] = True
    assert np.array_equal(unpacked(brush(mask)), np.repeat(mask.reshape(-1) * 255, 4))
    sdk = pytest.importorskip("label_studio_sdk.converter.brush")
    assert np.array_equal(sdk.decode_rle(brush(mask)), np.repeat(mask.reshape(-1) * 255, 4))


def test_label_studio_tasks() -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:5, 3:7] = True
    labels = MaskSet([[mask], []])
    with written(labels, "label-studio") as (path, _):
        first, second = json.loads(path.read_text())
    assert first["data"] == {"image": "a.jpg"} and second["predictions"][0]["result"] == []
    (region,) = first["predictions"][0]["result"]
    assert region["type"] == "brushlabels" and region["value"]["brushlabels"] == ["tall & <wide>"]
    assert (region["original_width"], region["original_height"], region["score"]) == (WIDTH, HEIGHT, 0.5)
    with written(labels, "label-studio", simplify=0) as (path, _):
        (region,) = json.loads(path.read_text())[0]["predictions"][0]["result"]
    points = np.array(region["value"]["points"]) / 100 * (WIDTH, HEIGHT)
    assert np.allclose(points, [[3, 2], [7, 2], [7, 5], [3, 5]], atol=1e-4) and region["value"]["closed"] is True


@given(pictures_of_masks)
@often
def test_geojson_read_by_shapely(all_masks: list[list[np.ndarray]]) -> None:
    shapely = pytest.importorskip("shapely")
    from shapely.geometry import shape

    with written(MaskSet(all_masks), "geojson") as (path, _):
        for place, of_picture in enumerate(all_masks):
            document = json.loads((path / ("b/b.geojson" if place else "a.geojson")).read_text())
            assert document["type"] == "FeatureCollection"
            x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
            for feature, mask in zip(document["features"], [m for m in of_picture if m.any()], strict=True):
                found = shape(feature["geometry"])
                assert found.is_valid and found.area == mask.sum() == feature["properties"]["area"]
                assert np.array_equal(shapely.contains_xy(found, x, y), mask)


@given(pictures_of_masks)
@often
def test_parquet_read_by_pyarrow(all_masks: list[list[np.ndarray]]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from pycocotools import mask as coco

    with written(MaskSet(all_masks), "parquet") as (path, losses):
        rows = parquet.read_table(path).to_pylist()
    everything = [mask for of_picture in all_masks for mask in of_picture]
    assert losses.masks == len(everything)
    for number, (row, mask) in enumerate(zip(rows, everything, strict=True), 1):
        rle = {"size": [row["height"], row["width"]], "counts": row["counts"].encode()}
        assert np.array_equal(coco.decode(rle), mask)
        assert json.loads(row["annotation_id"]) == number and row["area"] == mask.sum() and row["score"] == 0.5


POLYGONS = {
    "coco-polygons": lambda path: [a["segmentation"] for a in json.loads(path.read_text())["annotations"]],
    "yolo": lambda path: [line.split()[1:] for line in (path / "a.txt").read_text().splitlines()],
    "cvat": lambda path: [e.get("points") for e in ElementTree.parse(path).getroot().iter("polygon")],
    "labelme": lambda path: [s["points"] for s in json.loads((path / "a.json").read_text())["shapes"]],
    "geojson": lambda path: [f["geometry"] for f in json.loads((path / "a.geojson").read_text())["features"]],
    "label-studio": lambda path: [r["value"] for r in json.loads(path.read_text())[0]["predictions"][0]["result"]],
}


@pytest.mark.parametrize("name", POLYGONS)
def test_simplified_polygons_have_fewer_points_and_say_what_it_cost(name: str) -> None:
    y, x = np.mgrid[:120, :160]
    disc = (x - 80) ** 2 + (y - 60) ** 2 < 50**2
    disc &= (x - 80) ** 2 + (y - 60) ** 2 > 2**2
    read: Callable[[Path], Any] = POLYGONS[name]
    labels = MaskSet([[disc]], (120, 160))
    sizes, ious = [], []
    for pixels in (0, 1, 4):
        with written(labels, name, simplify=pixels) as (path, losses):
            sizes.append(len(json.dumps(read(path))))
            ious.append(losses.iou_worst)
            assert losses.holes == (1 if pixels == 4 else 0)
            if pixels == 4:
                assert "1 hole filled" in describe(name, losses.figures()) and "IoU" in describe(name, losses.figures())
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]
    assert ious[0] == 1 and 0.9 < ious[2] < ious[1] < 1


def test_losses_in_words() -> None:
    assert describe("coco", {"masks": 3}) == ""
    figures = {"masks": 2, "parts": 1, "holes": 2, "wrong_pixels": 3, "wrong_most": 2}
    line = describe("yolo", {**figures, "iou_mean": 0.99, "iou_worst": 0.98})
    assert line == (
        "yolo: 1 part left out, 2 holes filled; read back, the masks have an IoU of 0.9900 with the exact ones on the "
        "mean, 0.9800 at worst (1.5 pixels differ on the mean, 2 at most)"
    )


def test_more_objects_than_a_format_has_values_for() -> None:
    dot = np.zeros((20, 20), bool)
    dot[3, 3] = True
    with written(MaskSet([[dot] * 300], (20, 20)), "voc") as (path, losses):
        assert losses.left_out == 46 and losses.masks == 254
        assert np.asarray(Image.open(path / "SegmentationObject" / "a.png")).max() == 254
    with written(MaskSet([[dot] * 300], (20, 20)), "png-instance") as (path, losses):
        assert losses.left_out == 0 and np.asarray(Image.open(path / "a.png")).max() == 300


def test_pictures_that_would_share_a_file(tmp_path: Path) -> None:
    labels = MaskSet([[], []])
    labels._pictures[1] = labels._pictures[1].__class__("a.png", WIDTH, HEIGHT, [])
    for name in ("yolo", "labelme", "voc", "png-instance", "png-semantic", "geojson"):
        with pytest.raises(RunError, match=r"a\.png and a\.jpg would share the label file a\."):
            write_formats(labels, (name,), tmp_path / name, Options(), lambda _: None)


def test_several_formats_at_once(tmp_path: Path) -> None:
    names = chosen("coco,YOLO , geojson,coco")
    assert names == ("coco", "yolo", "geojson") and ending(names) == "" and ending(("cvat",)) == ".xml"
    write_formats(MaskSet([[]]), names, tmp_path / "out", Options(), lambda _: None)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["coco.json", "geojson", "yolo"]


def test_what_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="format jpeg: expected one of coco, coco-polygons, yolo"):
        chosen("coco,jpeg")
    with pytest.raises(InputError, match="simplify -1"):
        Options(simplify=-1)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install .mal-trt\[parquet\]"):
        chosen("parquet")
