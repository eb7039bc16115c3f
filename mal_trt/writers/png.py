"""Masks as PNG pictures whose values are objects or classes, and the list of what each value means."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mal_trt.writers.files import PictureFiles, words
from mal_trt.writers.labels import LabelSet, Object, Picture
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options

Done = Callable[[int], None]
INSTANCES, CLASSES = "instances.csv", "classes.csv"
COLUMNS = ("file", "value", "annotation_id", "image", "category_id", "category", "area", "visible_area")


def write_png_instance(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Done) -> None:
    """The folder `path`: for each picture a 16-bit PNG, 0 where nothing is, else 1, 2, ...: the picture's objects in
    the order of the document; instances.csv says which annotation each is. Small masks are drawn over large ones."""
    path.mkdir()
    files = PictureFiles(path)
    # An id of the document may hold a lone surrogate.
    with open(path / INSTANCES, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for picture in labels.pictures():
            things = _within(picture.objects, 0xFFFF, losses)
            values = drawn(picture, things, range(1, len(things) + 1), np.uint16, losses)
            visible = np.bincount(values.reshape(-1), minlength=len(things) + 1)
            place = files.path(picture.name, ".png")
            Image.fromarray(values).save(place)
            for value, thing in enumerate(things, 1):
                key, name = thing.category.key, words(thing.category.name)
                about = (thing.record.get("id"), picture.name, key, name, thing.area, int(visible[value]))
                table.writerow((place.relative_to(path).as_posix(), value, *about))
            losses.masks += len(things)
            done(len(picture.objects))


def write_png_semantic(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Done) -> None:
    """The folder `path`: for each picture a PNG, 0 where nothing is, else the class; classes.csv says which class each
    value is. 8 bits with a palette, 16 without one for more than 254 classes. Small masks are drawn over large ones."""
    path.mkdir()
    few = len(labels.categories) < 255
    with open(path / CLASSES, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("value", "category_id", "category"))
        table.writerow((0, "", "background"))
        for category in labels.categories.values():
            table.writerow((category.number + 1, category.key, words(category.name)))
    files = PictureFiles(path)
    for picture in labels.pictures():
        things = picture.objects
        numbers = [thing.category.number + 1 for thing in things]
        values = drawn(picture, things, numbers, np.uint8 if few else np.uint16, losses)
        save_palette(values, files.path(picture.name, ".png"))
        losses.masks += len(things)
        done(len(things))


def drawn(
    picture: Picture, things: Sequence[Object], values: Sequence[int], kind: Any, losses: FormatLoss
) -> np.ndarray:
    """The value of each pixel, [H,W]; large masks first, so that small ones stay visible. Counts what is hidden."""
    canvas = np.zeros((picture.height, picture.width), kind)
    for i in sorted(range(len(things)), key=lambda i: -things[i].area):
        local = things[i].local
        rows, columns = local.mask.shape
        window = canvas[local.y0 : local.y0 + rows, local.x0 : local.x0 + columns]
        losses.hidden_pixels += int(np.count_nonzero(window[local.mask] != 0))
        window[local.mask] = values[i]
    return canvas


def save_palette(values: np.ndarray, path: Path) -> None:
    """A PNG of values; of bytes with Pascal VOC's palette."""
    image = Image.fromarray(values)
    if values.dtype == np.uint8:
        image.putpalette(palette())
    image.save(path)


def _within(things: list[Object], most: int, losses: FormatLoss) -> list[Object]:
    losses.left_out += max(0, len(things) - most)
    return things[:most]


def palette() -> list[int]:
    """VOC's colours: bits 0, 3, 6 of the value are the highest of red, 1, 4, 7 of green, 2, 5 of blue, and so on."""
    colours = np.zeros((256, 3), np.int64)
    for value in range(256):
        for channel in range(3):
            for step in range(3):
                bit = 3 * step + channel
                if bit < 8:
                    colours[value, channel] |= (value >> bit & 1) << (7 - step)
    return [int(v) for v in colours.reshape(-1)]
