"""GeoJSON: a folder with a collection of features for each picture, for GIS tools and QuPath; exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.geometry.polygons import Part
from mal_trt.writers.files import PictureFiles, words
from mal_trt.writers.labels import LabelSet, Object
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_parts


def write_geojson(
    labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]
) -> None:
    """The folder `path`. Coordinates are the picture's pixels, from its top left corner, y downwards. Each mask is a
    Polygon or MultiPolygon with its holes, along the edges of its pixels."""
    path.mkdir()
    files = PictureFiles(path)
    for picture in labels.pictures():
        features = [_feature(thing, options, losses) for thing in picture.objects if thing.area]
        losses.empty += len(picture.objects) - len(features)
        losses.masks += len(features)
        document = {"type": "FeatureCollection", "features": features}
        files.path(picture.name, ".geojson").write_text(json.dumps(document) + "\n", encoding="utf-8")
        done(len(picture.objects))


def _feature(thing: Object, options: Options, losses: FormatLoss) -> dict[str, Any]:
    polygons = [_rings(part) for part in edge_parts(thing.local, options, losses)]
    name = words(thing.category.name)
    properties = {
        "objectType": "annotation",
        "classification": {"name": name},
        "category_id": thing.category.key,
        "area": thing.area,
        "bbox": thing.record.get("bbox"),
        "score": thing.record.get("score"),
        "quality": thing.marks,
    }
    single = len(polygons) == 1
    shape = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    about = {"id": thing.record["id"]} if isinstance(thing.record.get("id"), (int, str)) else {}
    properties = {key: value for key, value in properties.items() if value is not None}
    return {"type": "Feature", **about, "geometry": shape, "properties": properties}


def _rings(part: Part) -> list[list[list[float]]]:
    """Closed rings, the outer one first. With y pointing down, what looks clockwise here is not there."""
    return [np.concatenate([line, line[:1]]).round(2).tolist() for line in part.lines]
