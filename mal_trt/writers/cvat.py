"""CVAT for images 1.1: one .xml with a mask for every object, exact; polygons if they are to be simplified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.writers.files import text_file, words, xml_text
from mal_trt.writers.labels import LabelSet, Object
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_lines


def write_cvat(labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]) -> None:
    """Upload it to a task that holds the pictures under these names; its labels must have these names."""
    kind = "mask" if options.simplify is None else "polygon"
    with text_file(path) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task>')
        file.write("<mode>annotation</mode><labels>\n")
        for category in labels.categories.values():
            name = quoteattr(xml_text(words(category.name)))[1:-1]
            file.write(f"    <label><name>{name}</name><type>{kind}</type><attributes></attributes></label>\n")
        file.write("  </labels></task></meta>\n")
        for number, picture in enumerate(labels.pictures()):
            name = quoteattr(xml_text(picture.name))
            file.write(f'  <image id="{number}" name={name} width="{picture.width}" height="{picture.height}">\n')
            for group, thing in enumerate(picture.objects, 1):
                file.writelines(f"    {shape}\n" for shape in _shapes(thing, group, options, losses))
            file.write("  </image>\n")
            done(len(picture.objects))
        file.write("</annotations>\n")


def _shapes(thing: Object, group: int, options: Options, losses: FormatLoss) -> Iterator[str]:
    if not thing.area:
        losses.empty += 1
        return
    losses.masks += 1
    about = f'label={quoteattr(xml_text(words(thing.category.name)))} source="auto" occluded="0"'
    if options.simplify is None:
        x, y = thing.local.x0, thing.local.y0
        height, width = thing.local.mask.shape
        runs = ", ".join(map(str, _runs(thing.local)))
        yield f'<mask {about} rle="{runs}" left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"></mask>'
        return
    lines = edge_lines(thing.local, options, losses)
    together = f' group_id="{group}"' if len(lines) > 1 else ""
    for line in lines:
        points = ";".join(f"{px:.2f},{py:.2f}" for px, py in line.tolist())
        yield f'<polygon {about} points="{points}" z_order="0"{together}></polygon>'


def _runs(local: LocalMask) -> list[int]:
    """Lengths of runs along the rows of the mask's window, background first."""
    flat = local.mask.reshape(-1)
    bounds = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs: list[int] = np.diff(bounds).tolist()
    return [0, *runs] if flat[0] else runs
