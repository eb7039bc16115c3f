"""Formats that people have and that are not read: what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.reading.text import head

FIFTYONE = "FiftyOne's own JSON is not read; export the data set with dataset_type=fiftyone.types.COCODetectionDataset"
# What JSON of other tools holds, and what to do with it.
JSONS = (
    (
        ('"imgHeight"', '"objects"', '"polygon"'),
        "Cityscapes polygons are not read, since they hide one another; make COCO JSON of them first, as mmdetection's "
        "converter for Cityscapes does",
    ),
    (('"classTitle"', '"geometryType"'), "Supervisely's JSON is not read; export the project as COCO"),
    (('"labels"', '"bounding_box"'), FIFTYONE),
    (('"samples"', '"_cls"'), FIFTYONE),
    (('"items"', '"annotations"', '"categories"'), "Datumaro's JSON is not read; convert it with datum to COCO"),
    (('"annotations"', '"coordinates"', '"label"'), "CreateML's JSON is not read; export COCO or Pascal VOC instead"),
)
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
PACKED = "a compressed archive; unpack it first"


def check_known(file: Path) -> None:
    """InputError if a file that no reader takes is of a format of which we know what to do with it."""
    name = file.name.lower()
    if ".tfrecord" in name or name.endswith(".record"):
        raise InputError(f"{file}: TFRecord is not read; write its boxes as COCO JSON, CSV or Parquet")
    if name.endswith(ARCHIVES):
        raise InputError(f"{file}: {PACKED}")
    text = head(file) if name.endswith((".json", ".csv", ".tsv")) else ""
    if not name.endswith(".json"):
        if "original_width" in text:
            raise InputError(f"{file}: Label Studio's CSV is not read; export JSON, or JSON-MIN")
        return
    for keys, what in JSONS:
        if all(key in text for key in keys):
            raise InputError(f"{file}: {what}")


def check_not_panoptic(file: Path, record: Any) -> None:
    """InputError if a COCO annotation is that of a panoptic data set, whose masks are in PNG pictures beside."""
    if isinstance(record, dict) and "segments_info" in record:
        raise InputError(
            f"{file}: COCO panoptic is not read; take the instances_*.json of the same data set, or make one of it, as "
            "panopticapi's panoptic2detection_coco_format.py does"
        )
