"""CVAT's auto-annotation functions: cvat-sdk's own checks and decoder accept what they give, and masks are exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

cvat = pytest.importorskip("cvat_sdk.auto_annotation")
masks = pytest.importorskip("cvat_sdk.masks")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")

from mal_trt import Labeler
from mal_trt.base.errors import InputError

BOXES = [[6, 10, 28, 20], [2, 2, 76, 76], [86, 50, 28, 20]]


@pytest.fixture
def function(serve_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    from mal_trt.serve.cvat import create

    def make(annotations: list[dict[str, Any]] | None = None, **options: Any) -> Any:
        if annotations is None:
            annotations = [{"image_id": 7, "category_id": 3 + i % 2, "bbox": box} for i, box in enumerate(BOXES)]
        document = {
            "images": [{"id": 7, "file_name": "a.png", "width": 120, "height": 80}],
            "annotations": [{"id": i, **record} for i, record in enumerate(annotations)],
            "categories": [{"id": 3, "name": "blob"}, {"id": 4, "name": "other"}],
        }
        (tmp_path / "boxes.json").write_text(json.dumps(document))
        return create(str(tmp_path / "boxes.json"), model=str(serve_folder / "tiny.onnx"), device="cpu", **options)

    return make


def context(name: str = "a.png", least: float | None = None, polygons: bool = False) -> Any:
    return driver._DetectionFunctionContextImpl(frame_name=name, conf_threshold=least, conv_mask_to_poly=polygons)


def remapped(function: Any, shapes: Any, kind: str = "mask", polygons: bool = False) -> list[Any]:
    """The shapes as cvat-sdk takes them: checked, with the labels of a task."""
    labels = [
        SimpleNamespace(id=70 + i, name=n, type="any", attributes=[], sublabels=[])
        for i, n in enumerate(("blob", "other"))
    ]
    mapper = driver._AnnotationMapper(
        SimpleNamespace(info=print),
        function.spec.labels,
        labels,
        allow_unmatched_labels=False,
        conv_mask_to_poly=polygons,
    )
    _, mapped = mapper.validate_and_remap(shapes, 5)
    assert all(shape.type.value == kind and shape.frame == 5 for shape in mapped)
    return list(mapped)


@pytest.fixture
def photo(serve_folder: Path) -> Image.Image:
    return Image.open(serve_folder / "pictures" / "a.png")


@pytest.fixture
def expected(serve_folder: Path, photo: Image.Image) -> np.ndarray:
    with Labeler(serve_folder / "tiny.onnx", device="cpu") as labeler:
        return labeler(photo, BOXES, "xywh").masks


def test_boxes_of_a_file_become_masks(function: Callable[..., Any], photo: Image.Image, expected: np.ndarray) -> None:
    own = function()
    shapes = remapped(own, own.detect(context(), photo))
    assert [shape.label_id for shape in shapes] == [70, 71, 70]
    for shape, mask in zip(shapes, expected, strict=True):
        read = masks.decode_mask(shape.points, image_width=120, image_height=80)
        np.testing.assert_array_equal(read, mask)
    assert len(own.detect(context("sub/folder/a.png"), photo)) == 3
    assert own.detect(context("another.png"), photo) == []


def test_polygons_if_the_task_wants_them(function: Callable[..., Any], photo: Image.Image) -> None:
    own = function()
    shapes = remapped(own, own.detect(context(polygons=True), photo), "polygon", polygons=True)
    assert len(shapes) >= 3 and all(len(shape.points) >= 6 for shape in shapes)


def test_the_threshold_of_confidence(function: Callable[..., Any], photo: Image.Image) -> None:
    own = function()
    assert len(own.detect(context(least=0.0), photo)) == 3
    assert own.detect(context(least=0.9999), photo) == []


def test_boxes_that_are_none_are_left_out(function: Callable[..., Any], photo: Image.Image) -> None:
    bad = [[500, 500, 9, 9], [5, 5, 0, 9], [5, 5, -4, 9], None, [1, 2, 3], "abcd", [1, 2, None, 4], [1, 2, 10**400, 4]]
    records = [{"image_id": 7, "category_id": 3, "bbox": box} for box in [*bad, BOXES[0]]]
    own = function([*records, {"image_id": [7], "category_id": {}, "bbox": BOXES[1]}])
    assert len(own.detect(context(), photo)) == 1


def test_a_file_that_is_none(function: Callable[..., Any], tmp_path: Path) -> None:
    from mal_trt.serve.cvat import create

    with pytest.raises(InputError):
        create(str(tmp_path / "none.json"))


def test_a_drawn_box_becomes_a_mask(serve_folder: Path, photo: Image.Image, expected: np.ndarray) -> None:
    from mal_trt.serve.cvat import create

    own = create(model=str(serve_folder / "tiny.onnx"), device="cpu")
    assert own.spec.min_bounding_boxes == 1
    x, y, width, height = BOXES[0]
    prompts = SimpleNamespace(pos_points=[], neg_points=[], bounding_box=((x, y), (x + width, y + height)))
    (shape,) = own.detect(None, photo, prompts)
    assert isinstance(shape, cvat.InteractionResultShape) and shape.type == "mask"
    np.testing.assert_array_equal(masks.decode_mask(shape.points, image_width=120, image_height=80), expected[0])
    assert 0 < float(shape.attributes[0].value) <= 1
    outside = SimpleNamespace(pos_points=[], neg_points=[], bounding_box=((500, 500), (600, 600)))
    assert own.detect(None, photo, outside) == []
