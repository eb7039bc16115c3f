"""A YOLO segmentation set: a folder with a .txt for each picture and the class names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mal_trt.writers.files import PictureFiles, words
from mal_trt.writers.labels import LabelSet
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import centre_line

CLASSES = "classes.txt"


def write_yolo(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]) -> None:
    """The folder `path`: for each picture lines of `class x y x y ...`, shares of its sides.

    A mask is one line whatever it is made of, see `centre_line`: through the centres of its pixels, as tools that train
    on such sets fill it. A class is its category's place in the document, and its name stands in classes.txt. A picture
    without boxes gets an empty file, which says that nothing is in it; one whose boxes were all skipped gets none.
    """
    path.mkdir()
    names = "".join(f"{words(category.name) or category.number}\n" for category in labels.categories.values())
    (path / CLASSES).write_text(names, encoding="utf-8")
    files = PictureFiles(path, {CLASSES: "the class names"}, again=True)
    for picture in labels.pictures():
        with open(files.path(picture.name, ".txt"), "a", encoding="utf-8") as file:
            for thing in picture.objects:
                if not thing.area:
                    losses.empty += 1
                    continue
                shares = centre_line(thing.local, options, losses) / (picture.width, picture.height)
                file.write(f"{thing.category.number} {' '.join(f'{v:.6f}' for v in shares.reshape(-1))}\n")
                losses.masks += 1
        done(len(picture.objects))
