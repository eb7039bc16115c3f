"""Label Studio: one .json of tasks with predictions, a brush mask for every object, exact; polygons if simplified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.writers.coco import write_list
from mal_trt.writers.files import text_file, words
from mal_trt.writers.labels import LabelSet, Object, Picture
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_lines

FROM, TO = "label", "image"  # names of the tags in the labelling configuration
SIZES = (3, 4, 8, 16)  # bits of a run's length, whichever of them is enough
LONGEST = 1 << SIZES[-1]


def write_label_studio(
    labels: LabelSet, path: Path, options: Options, losses: FormatLoss, done: Callable[[int], None]
) -> None:
    """Import it into a project whose configuration has an Image `image` and BrushLabels (for polygons PolygonLabels)
    `label`. `data.image` is the picture's name; put before it what your storage needs."""

    def tasks() -> Iterator[str]:
        for picture in labels.pictures():
            result = [
                region
                for number, thing in enumerate(picture.objects)
                for region in _regions(picture, thing, number, options, losses)
            ]
            prediction = {"model_version": "mal-trt", "result": result}
            yield json.dumps({"data": {"image": picture.name}, "predictions": [prediction]})
            done(len(picture.objects))

    with text_file(path) as file:
        write_list(file, tasks())
        file.write("\n")


def brush(mask: np.ndarray) -> list[int]:
    """A mask, bool [H,W], as Label Studio packs brushes: bytes of a bit stream of runs of the picture's RGBA values.

    The stream: how many values there are (32 bits), bits of a value less one (5), bits of the four sizes of lengths
    less one (4 each); then for each run a one, which size (2), its length less one, the value.
    """
    flat = mask.reshape(-1)
    bounds = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    lengths, values = np.diff(bounds) * 4, flat[bounds[:-1]] * np.int64(255)
    pieces = -(-lengths // LONGEST)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    runs = np.full(len(values), LONGEST, np.int64)
    runs[last] = lengths - (pieces - 1) * LONGEST
    size = np.searchsorted(1 << np.array(SIZES), runs)
    bits = np.array(SIZES)[size]
    codes = ((4 | size) << bits | (runs - 1)) << 8 | values
    head = [(flat.size * 4, 32), (7, 5), *((bits - 1, 4) for bits in SIZES)]
    codes = np.concatenate([[code for code, _ in head], codes])
    widths = np.concatenate([[width for _, width in head], bits + 11])
    place = np.arange(int(widths.sum())) - np.repeat(np.cumsum(widths) - widths, widths)
    stream = np.repeat(codes, widths) >> (np.repeat(widths, widths) - 1 - place) & 1
    packed: list[int] = np.packbits(stream.astype(np.uint8)).tolist()
    return packed


def mask_regions(
    local: LocalMask,
    size: tuple[int, int],
    key: str,
    names: list[str],
    options: Options,
    losses: FormatLoss,
    tags: tuple[str, str] = (FROM, TO),
) -> Iterator[dict[str, Any]]:
    """The regions of one mask that has pixels: a brush, or with `options.simplify` a polygon for each part.

    size: width and height of the picture. key: begins the regions' ids. names: its labels. tags: names of the tags that
    hold labels and picture.
    """
    about = {
        "from_name": tags[0],
        "to_name": tags[1],
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }
    if options.simplify is None:
        rle = brush(local.full(size[1], size[0]))
        value: dict[str, Any] = {"format": "rle", "rle": rle, "brushlabels": names}
        yield {"id": key, "type": "brushlabels", **about, "value": value}
        return
    for part, line in enumerate(edge_lines(local, options, losses)):
        percent = line * 100 / size
        points = [[round(x, 4), round(y, 4)] for x, y in percent.tolist()]
        value = {"points": points, "closed": True, "polygonlabels": names}
        yield {"id": f"{key}-{part}", "type": "polygonlabels", **about, "value": value}


def _regions(
    picture: Picture, thing: Object, number: int, options: Options, losses: FormatLoss
) -> Iterator[dict[str, Any]]:
    if not thing.area:
        losses.empty += 1
        return
    losses.masks += 1
    score = {"score": thing.record["score"]} if isinstance(thing.record.get("score"), (int, float)) else {}
    size, names = (picture.width, picture.height), [words(thing.category.name)]
    for region in mask_regions(thing.local, size, str(number), names, options, losses):
        yield {**region, **score}
