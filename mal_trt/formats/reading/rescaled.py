"""A document whose pictures were resized since its boxes were made: its boxes and polygons scaled to them."""

from __future__ import annotations

from typing import Any

from mal_trt.formats.images import ImageSource
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.reading.build import Document
from mal_trt.formats.reading.json_kinds import size_of
from mal_trt.geometry.rescale import one_factor, scaled_record


def rescaled(document: Document, images: ImageSource) -> Document:
    """The document, pictures that one factor explains and their records scaled; all others as they were."""
    factors: dict[Any, tuple[float, float]] = {}
    pictures = []
    for record in document["images"]:
        said, name = size_of(record.get("width"), record.get("height")), record.get("file_name")
        try:
            size = images.size(name) if said and isinstance(name, str) else None
        except ImageProblem:
            size = None
        if said and size and size != said and one_factor(said, size) and isinstance(record.get("id"), (int, str)):
            factors[record["id"]] = size[0] / said[0], size[1] / said[1]
            record = {**record, "width": size[0], "height": size[1]}
        pictures.append(record)
    records = []
    for record in document["annotations"]:
        key, bbox = record.get("image_id"), record.get("bbox")
        if isinstance(key, (int, str)) and key in factors and isinstance(bbox, list) and len(bbox) == 4:
            record = scaled_record(record, *factors[key])
        records.append(record)
    return {**document, "images": pictures, "annotations": records}
