"""A document whose pictures were resized since its boxes were made: its boxes and masks scaled to them."""

from __future__ import annotations

from typing import Any

from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Document
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.rescale import one_factor, scaled_record
from mal_trt.geometry.rle import resized_rle


def rescaled(document: Document, images: ImageSource) -> Document:
    """The document, pictures that one factor explains and their records scaled; all others as they were."""
    resized: dict[Any, tuple[tuple[int, int], tuple[int, int]]] = {}
    pictures = []
    for record in document["images"]:
        said, name = size_of(record.get("width"), record.get("height")), record.get("file_name")
        try:
            size = images.size(name) if said and isinstance(name, str) else None
        except ImageProblem:
            size = None
        if said and size and size != said and one_factor(said, size) and isinstance(record.get("id"), (int, str)):
            resized[record["id"]] = said, size
            record = {**record, "width": size[0], "height": size[1]}
        pictures.append(record)
    records = []
    for record in document["annotations"]:
        key, bbox = record.get("image_id"), record.get("bbox")
        if isinstance(key, (int, str)) and key in resized and isinstance(bbox, list) and len(bbox) == 4:
            record = _scaled(record, *resized[key])
        records.append(record)
    return {**document, "images": pictures, "annotations": records}


def _scaled(record: dict[str, Any], said: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """An annotation of a picture that was of the said (width, height) and is of another size now."""
    scaled = scaled_record(record, size[0] / said[0], size[1] / said[1])
    runs = record.get("segmentation")
    if isinstance(runs, dict):
        try:
            scaled["segmentation"] = resized_rle(to_rle(runs, said[1], said[0]), size[1], size[0])
        except ValueError:  # its reason comes up where the mask is used
            scaled["segmentation"] = runs
    return scaled
