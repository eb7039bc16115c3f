"""Formats that are not read say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from box_files import write
from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import open_images

PANOPTIC = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}],
    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 5, "category_id": 1}]}],
    "categories": [{"id": 1, "name": "cat"}],
}
CITYSCAPES = {"imgHeight": 60, "imgWidth": 80, "objects": [{"label": "car", "polygon": [[1, 1], [20, 1], [20, 30]]}]}

SUPERVISELY = {
    "size": {"height": 60, "width": 80},
    "objects": [{"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 1], [20, 30]]}}],
}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("panoptic_val.json", PANOPTIC, r"take the instances_\*\.json"),
        ("a_gtFine_polygons.json", CITYSCAPES, "make COCO JSON of them first"),
        ("a.jpg.json", SUPERVISELY, "export the project as COCO"),
        (
            "labels.json",
            {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [0, 0, 1, 1]}]}},
            "FiftyOne",
        ),
        ("samples.json", {"samples": [{"filepath": "a.png", "boxes": {"_cls": "Detections"}}]}, "FiftyOne"),
        (
            "default.json",
            {"info": {}, "categories": {}, "items": [{"id": "a", "annotations": []}]},
            "with datum to COCO",
        ),
        ("ml.json", [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}], "CreateML"),
        ("ls.csv", 'id,image,label\n1,a.png,"[{""x"": 1, ""original_width"": 80}]"\n', "JSON-MIN"),
        ("train.tfrecord-00000-of-00010", "\x14\0\0\0", "write its boxes as COCO JSON, CSV or Parquet"),
        ("boxes.zip", "PK\3\4 and more", "unpack it first"),
        ("a.txt", "0 .5 .5 .2 .2" + 17 * " .4 .4 2", r"data\.yaml"),
    ],
)
def test_says_what_to_do(tmp_path: Path, pictures: Path, name: str, content: Any, says: str) -> None:
    file = write(tmp_path / "set" / name, content)
    for path in (file, file.parent):
        with pytest.raises(InputError, match=says) as caught:
            Boxes(path).document(open_images(pictures))
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=says):
            list(Boxes(path).entries(open_images(pictures)))


def test_polygons_with_tracks_are_no_poses(tmp_path: Path, pictures: Path) -> None:
    file = write(tmp_path / "set" / "a.txt", "0 0 0 1 0 1 1 0 1 .9 2\n1 0 0 1 0 1 1 2\n")
    assert len(Boxes(file).document(open_images(pictures))["annotations"]) == 2


def test_the_pictures_of_masks_are_no_photos(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 6)).save(tmp_path / folder / ("a.jpg" if folder == "JPEGImages" else "a.png"))
    assert open_images(tmp_path).find("a.png") == "JPEGImages/a.jpg"
    assert open_images(tmp_path / "SegmentationObject").find("a") == "a.png"
