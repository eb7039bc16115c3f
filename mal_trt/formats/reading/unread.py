"""Formats that people have and that are not read: what to do instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.reading.text import head

ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
PACKED = "a compressed archive; unpack it first"


def check_known(file: Path) -> None:
    """InputError if a file that no reader takes is of a format of which we know what to do with it."""
    name = file.name.lower()
    if ".tfrecord" in name or name.endswith(".record"):
        raise InputError(f"{file}: TFRecord is not read; write its boxes as COCO JSON, CSV or Parquet")
    if name.endswith(ARCHIVES):
        raise InputError(f"{file}: {PACKED}")
    if name.endswith(".json") and all(key in head(file) for key in ('"imgHeight"', '"objects"', '"polygon"')):
        raise InputError(
            f"{file}: Cityscapes polygons are not read, since they hide one another; make COCO JSON of them first, as "
            "mmdetection's converter for Cityscapes does"
        )


def check_not_panoptic(file: Path, record: Any) -> None:
    """InputError if a COCO annotation is that of a panoptic data set, whose masks are in PNG pictures beside."""
    if isinstance(record, dict) and "segments_info" in record:
        raise InputError(
            f"{file}: COCO panoptic is not read; take the instances_*.json of the same data set, or make one of it, as "
            "panopticapi's panoptic2detection_coco_format.py does"
        )
