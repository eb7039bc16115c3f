"""LabelMe: a folder with a .json of polygons for each picture, to be laid beside the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mal_trt.writers.files import PictureFiles, words
from mal_trt.writers.labels import LabelSet, Object
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import painted_lines

VERSION = "5.5.0"


def write_labelme(
    labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]
) -> None:
    """The folder `path`. Each part of a mask is a polygon, its holes tied to it; the parts of one mask share a
    `group_id`. A picture is named by its base name, since LabelMe looks for it beside the .json."""
    path.mkdir()
    files = PictureFiles(path)
    for picture in labels.pictures():
        shapes = [
            shape for group, thing in enumerate(picture.objects, 1) for shape in _shapes(thing, group, options, losses)
        ]
        document: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": PurePosixPath(picture.name).name,
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        files.path(picture.name, ".json").write_text(json.dumps(document) + "\n", encoding="utf-8")
        done(len(picture.objects))


def _shapes(thing: Object, group: int, options: Options, losses: FormatLoss) -> list[dict[str, Any]]:
    if not thing.area:
        losses.empty += 1
        return []
    losses.masks += 1
    lines = painted_lines(thing.local, options, losses)
    return [
        {
            "label": words(thing.category.name),
            "points": [[round(x, 2), round(y, 2)] for x, y in line.tolist()],
            "group_id": group if len(lines) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for line in lines
    ]
