"""`--decode scaled`: large photos decoded smaller, masks as large as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools import mask as coco

from label_data import blob_picture
from mal_trt import Labeler, label
from mal_trt.base.errors import RunError
from mal_trt.formats.images import ImageSource
from mal_trt.labelling.predictor import Predictor

Write = Callable[..., Any]
OPTIONS: dict[str, Any] = {"device": "cpu", "batch": 2, "threads": 1, "progress": False}


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Path]:
    """Two JPEGs of blobs 400 px across: one with large boxes, one with a small box too."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images, records = [], []
    for index in (1, 2):
        small = Image.fromarray(blob_picture(120, 80, index))
        small.resize((1201, 801), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=95)
        images.append({"id": index, "file_name": f"{index}.jpg", "width": 1201, "height": 801})
        records += [{"image_id": index, "bbox": [400 * k + 30, 60, 340, 300]} for k in range(3)]
    records.append({"image_id": 2, "bbox": [100, 500, 90, 60]})
    annotations = [{"id": at + 1, "category_id": 3, **record} for at, record in enumerate(records)]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 3}]}))
    return folder, boxes


def masks(path: Path) -> list[dict[str, Any]]:
    return [a["segmentation"] for a in json.loads(path.read_text())["annotations"]]


def test_pictures_of_large_boxes_alone_are_decoded_smaller(
    tmp_path: Path, tiny_model: Write, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    load = ImageSource.load

    def noted(self: ImageSource, name: str, *rest: Any) -> Any:
        pixels = load(self, name, *rest)
        sizes[name] = pixels.shape
        return pixels

    monkeypatch.setattr(ImageSource, "load", noted)
    model = tiny_model()
    assert Predictor(model, "cpu").contract.input_size == 64
    label(*photos, model, tmp_path / "exact.json", **OPTIONS)
    assert sizes == {"1.jpg": (801, 1201, 3), "2.jpg": (801, 1201, 3)}
    label(*photos, model, tmp_path / "scaled.json", decode="scaled", **OPTIONS)
    assert sizes == {"1.jpg": (201, 301, 3), "2.jpg": (801, 1201, 3)}  # 300 * 1.3 is more than 4 * 64
    exact, scaled = masks(tmp_path / "exact.json"), masks(tmp_path / "scaled.json")
    assert scaled[3:] == exact[3:]
    for one, other in zip(exact[:3], scaled[:3], strict=True):
        assert one["size"] == other["size"] == [801, 1201]
        assert coco.iou([one], [other], [0])[0][0] > 0.97
    found = Labeler(model, "cpu", decode="scaled", batch=2)(
        photos[0] / "1.jpg", [[400 * k + 30, 60, 400 * k + 370, 360] for k in range(3)]
    )
    assert found.rle == scaled[:3] and (found.height, found.width) == (801, 1201)


def test_a_stopped_run_goes_on_at_the_same_size(
    tmp_path: Path, tiny_model: Write, photos: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small box is done when the run stops; its picture still is decoded for it."""
    model = tiny_model()
    options = {**OPTIONS, "decode": "scaled", "batch": 1}
    out = tmp_path / "stopped.json"
    run, calls = Predictor.run, 0

    def stops(self: Predictor, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RunError("stopped")
        return run(self, *rest)

    document = json.loads(photos[1].read_text())
    document["annotations"].insert(3, document["annotations"].pop())  # the small box comes first in its picture
    photos[1].write_text(json.dumps(document))
    label(*photos, model, tmp_path / "whole.json", **options)
    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "run", stops)
        with pytest.raises(RunError, match="stopped"):
            label(*photos, model, out, **options)
    summary = label(*photos, model, out, resume=True, **options)
    assert 0 < summary.resumed < 7
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
