"""Read back by datumaro, where it is installed: CVAT's masks and polygons, COCO, Pascal VOC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from label_sets import HEIGHT, WIDTH, MaskSet
from mal_trt.writers.formats import write_formats
from mal_trt.writers.options import Options

dataset = pytest.importorskip("datumaro.components.dataset")


@pytest.fixture
def masks() -> list[np.ndarray]:
    """A ring with a dot in it, and two parts beside it; nothing overlaps."""
    ring, two = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    ring[1:9, 1:8] = True
    ring[3:7, 3:6] = False
    ring[4, 4] = True
    two[2:5, 9:11] = two[7:9, 10:12] = True
    return [ring, two]


def read(masks: list[np.ndarray], name: str, file: Path, root: Path, format: str, **options: Any) -> list[Any]:
    """The annotations of the picture, in datumaro's own objects."""
    for folder in ("images", "images/default"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / folder / "a.jpg")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_formats(MaskSet([masks]), (name,), file, Options(**options), lambda _: None)
    items = {item.id: item for item in dataset.Dataset.import_from(str(root), format)}
    return list(items["a"].annotations)


def test_cvat(tmp_path: Path, masks: list[np.ndarray]) -> None:
    found = read(masks, "cvat", tmp_path / "annotations.xml", tmp_path, "cvat")
    assert [a.type.name for a in found] == ["mask", "mask"] and [a.label for a in found] == [0, 1]
    for annotation, mask in zip(found, masks, strict=True):
        assert np.array_equal(np.asarray(annotation.image).astype(bool), mask)


def test_cvat_polygons(tmp_path: Path, masks: list[np.ndarray]) -> None:
    from pycocotools import mask as coco

    found = read(masks, "cvat", tmp_path / "annotations.xml", tmp_path, "cvat", simplify=0)
    assert [a.type.name for a in found] == ["polygon"] * 4 and [a.label for a in found] == [0, 0, 1, 1]
    assert found[0].group == found[1].group != found[2].group == found[3].group
    for lines, mask in zip((found[:2], found[2:]), masks, strict=True):
        rle = coco.merge(coco.frPyObjects([a.points for a in lines], HEIGHT, WIDTH))
        assert np.array_equal(coco.decode(rle).astype(bool), mask)


def test_coco(tmp_path: Path, masks: list[np.ndarray]) -> None:
    file = tmp_path / "annotations" / "instances_default.json"
    found = [a for a in read(masks, "coco", file, tmp_path, "coco_instances") if a.type.name == "mask"]
    read_masks = [np.asarray(annotation.image).astype(bool) for annotation in sorted(found, key=lambda a: a.id)]
    assert all(np.array_equal(one, mask) for one, mask in zip(read_masks, masks, strict=True)), (
        "in the order of the ids"
    )


def test_voc(tmp_path: Path, masks: list[np.ndarray]) -> None:
    found = [a for a in read(masks, "voc", tmp_path / "voc", tmp_path, "voc") if a.type.name == "mask"]
    for annotation, mask in zip(found, masks, strict=True):
        assert np.array_equal(np.asarray(annotation.image).astype(bool), mask)
