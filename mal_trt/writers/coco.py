"""COCO JSON: the document the labels came from, with masks as run lengths or as polygons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mal_trt.formats.jsonstream import BARE_LIST
from mal_trt.formats.segmentations import to_rle
from mal_trt.writers.files import text_file
from mal_trt.writers.labels import LabelSet, Object
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_lines

Segment = Callable[[Object], Any]
Done = Callable[[int], None]


def write_coco(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Done) -> None:
    """Masks as compressed run lengths. All but `segmentation`, `area`, `quality` and a missing
    `iscrowd` stays as it was."""
    _write(labels, path, options, losses, done, lambda thing: thing.rle)


def write_coco_polygons(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Done) -> None:
    """Masks as polygons, one for each part, its holes tied to it: exact as pycocotools reads them."""

    def polygons(thing: Object) -> list[list[float]]:
        if not thing.area:
            losses.empty += 1
            return []
        return [_numbers(line.reshape(-1).tolist()) for line in edge_lines(thing.local, options, losses)]

    _write(labels, path, options, losses, done, polygons)


def write_list(file: TextIO, records: Iterator[str]) -> None:
    """A JSON list, a record a line."""
    file.write("[")
    for index, record in enumerate(records):
        file.write(f"{',' if index else ''}\n{record}")
    file.write("\n]")


def _write(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Done, segment: Segment) -> None:
    pieces = labels.pieces()
    with text_file(path) as file:
        if pieces[0][0] == BARE_LIST:
            write_list(file, _records(labels, options, losses, done, segment))
        else:
            for index, (key, value) in enumerate(pieces):
                file.write(f"{',' if index else '{'}\n{json.dumps(key)}: ")
                if value is not None:
                    file.write(value)
                elif key == "annotations":
                    write_list(file, _records(labels, options, losses, done, segment))
                else:
                    write_list(file, labels.image_records())
            file.write("\n}")
        file.write("\n")


def _records(labels: LabelSet, options: Options, losses: FormatLoss, done: Done, segment: Segment) -> Iterator[str]:
    for thing in labels.objects():
        record = dict(thing.record)
        record["segmentation"] = segment(thing)
        record["area"] = float(record["bbox"][2] * record["bbox"][3]) if options.box_area else thing.area
        record.setdefault("iscrowd", 0)
        if options.iou and (iou := _iou(thing)) is not None:
            record["iou"] = iou
        if found := thing.marks:
            record["quality"] = found
        yield json.dumps(record)
        losses.masks += 1
        done(1)


def _iou(thing: Object) -> float | None:
    """IoU of a mask with the one that was drawn for the same box; None without a drawn one that can be read."""
    from pycocotools import mask as coco

    drawn = thing.record.get("segmentation")
    if not drawn:
        return None
    try:
        truth = to_rle(drawn, *thing.rle["size"])
    except ValueError:
        return None
    return float(coco.iou([thing.rle], [truth], [0])[0][0])


def _numbers(values: list[float]) -> list[float]:
    """Whole numbers without a point: most are."""
    return [int(value) if value == int(value) else round(value, 2) for value in values]
