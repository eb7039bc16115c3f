"""Pascal VOC: .xml boxes, and .png masks of objects and of classes, in VOC's folders."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from mal_trt.writers.files import PictureFiles, words, xml_text
from mal_trt.writers.labels import LabelSet, Object, Picture
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.png import drawn, palette, save_palette

MOST = 254  # values of a VOC mask: 0 is background, 255 the border that VOC leaves open


def write_voc(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]) -> None:
    """The folder `path`: Annotations, SegmentationObject (1, 2, ... in the order of the .xml), SegmentationClass
    (values and colours in labelmap.txt), ImageSets. Small masks are drawn over large ones."""
    for folder in (
        "Annotations",
        "SegmentationObject",
        "SegmentationClass",
        "ImageSets/Main",
        "ImageSets/Segmentation",
    ):
        (path / folder).mkdir(parents=True)
    names = [xml_text(words(category.name)) for category in labels.categories.values()]
    (path / "labelmap.txt").write_text(_labelmap(names), encoding="utf-8")
    boxes, things, classes = (
        PictureFiles(path / folder) for folder in ("Annotations", "SegmentationObject", "SegmentationClass")
    )
    lists = path / "ImageSets"
    with open(lists / "Segmentation" / "default.txt", "w", encoding="utf-8") as listed:
        for picture in labels.pictures():
            about = boxes.path(picture.name, ".xml")
            about.write_text(_xml(picture), encoding="utf-8")
            kept = picture.objects[:MOST]
            losses.left_out += len(picture.objects) - len(kept)
            numbers = [min(thing.category.number + 1, MOST) for thing in kept]
            values = drawn(picture, kept, range(1, len(kept) + 1), np.uint8, losses)
            save_palette(values, things.path(picture.name, ".png"))
            save_palette(np.array([0, *numbers], np.uint8)[values], classes.path(picture.name, ".png"))
            listed.write(f"{about.relative_to(path / 'Annotations').with_suffix('').as_posix()}\n")
            losses.masks += len(kept)
            done(len(picture.objects))
    shutil.copy(lists / "Segmentation" / "default.txt", lists / "Main" / "default.txt")


def _xml(picture: Picture) -> str:
    return (
        f"<annotation>\n  <folder></folder>\n  <filename>{escape(xml_text(picture.name))}</filename>\n"
        f"  <size><width>{picture.width}</width><height>{picture.height}</height><depth>3</depth></size>\n"
        "  <segmented>1</segmented>\n" + "".join(map(_object, picture.objects)) + "</annotation>\n"
    )


def _object(thing: Object) -> str:
    """VOC counts pixels from 1 and includes the last one."""
    x0, y0, x1, y1 = thing.box
    sides = {"xmin": math.floor(x0) + 1, "ymin": math.floor(y0) + 1, "xmax": math.ceil(x1), "ymax": math.ceil(y1)}
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides.items())
    name = escape(xml_text(words(thing.category.name)))
    return (
        f"  <object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox>{corners}</bndbox></object>\n"
    )


def _labelmap(names: list[str]) -> str:
    colours = np.array(palette()).reshape(-1, 3)
    rows = [
        f"{name}:{','.join(map(str, colours[min(i, MOST)].tolist()))}::"
        for i, name in enumerate(["background", *names])
    ]
    return "# label:color_rgb:parts:actions\n" + "\n".join(rows) + "\n"
