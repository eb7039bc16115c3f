"""The worst objects of an evaluation as one picture: what a mean hides, to be looked at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_file, write_whole
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import RLE, decode_rle
from mal_trt.measure.metrics import boundary

MOST = 20
COLUMNS = 5
SIDE = 320  # of a crop on the sheet, pixels
CAPTION = 22
GAP = 8
MARGIN = 0.08  # around what is shown, as a share of its longer side
LINE = 2
PAPER, MISSING, INK = (18, 20, 24), (70, 72, 78), (240, 240, 240)
DRAWN, FOUND = (0, 230, 110), (255, 56, 92)
LEGEND = (("drawn mask", DRAWN), ("mask that was judged", FOUND))


@dataclass(frozen=True)
class ScoredObject:
    """One judged object. bbox: XYWH, picture pixels; picture: its record in the document; both masks of its size.
    category: the id of its class. quality: what its label says of itself, None where it says nothing."""

    key: Any
    name: str
    iou: float
    bbox: Sequence[float]
    picture: dict[str, Any]
    found: RLE
    drawn: RLE
    category: Any = None
    quality: Any = None


def check_worst(path: Path | None) -> None:
    """InputError if no such picture could be written there; None is no picture at all."""
    if path is not None and path.suffix.lower() != ".png":
        raise InputError(f"{path}: the worst objects are written as PNG; give a name that ends in .png")
    check_file(path)


class Worst:
    """Keeps the objects of lowest IoU, MOST of them; of equal ones those that came first."""

    def __init__(self) -> None:
        self._kept: list[ScoredObject] = []

    def add(self, seen: ScoredObject) -> None:
        """One more object."""
        self._kept.append(seen)
        if len(self._kept) > 8 * MOST:
            self._kept = self.kept

    @property
    def kept(self) -> list[ScoredObject]:
        """The worst first."""
        return sorted(self._kept, key=lambda seen: seen.iou)[:MOST]

    def write(self, images: ImageSource, path: Path) -> None:
        """The sheet as a PNG file. A picture that cannot be read leaves its tile grey, the outlines still drawn."""
        stream = io.BytesIO()
        self.draw(images).save(stream, "PNG")
        write_whole(path, stream.getvalue())

    def draw(self, images: ImageSource) -> Image.Image:
        """The sheet: a tile for each object with its crop, both outlines, its IoU, class and annotation id."""
        kept = self.kept
        columns = max(1, min(COLUMNS, len(kept)))
        rows = -(-len(kept) // columns)
        step = SIDE + GAP, SIDE + CAPTION + GAP
        sheet = Image.new("RGB", (columns * step[0] + GAP, CAPTION + rows * step[1] + GAP), PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
        x = float(GAP)
        for text, colour in LEGEND:
            draw.text((x, 4), text, font=font, fill=colour)
            x += draw.textlength(text, font=font) + 16
        for index, seen in enumerate(kept):
            left, top = GAP + index % columns * step[0], CAPTION + GAP + index // columns * step[1]
            caption = f"IoU {100 * seen.iou:.1f} %  {seen.name}  id {seen.key}"
            draw.text((left, top), _fitted(caption, draw, font), font=font, fill=INK)
            tile = _tile(seen, images)
            sheet.paste(tile, (left + (SIDE - tile.width) // 2, top + CAPTION))
        return sheet


def _fitted(text: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """A text as one line, cut to the width of a tile; Pillow measures no text of several lines."""
    text = " ".join(text.split())[:SIDE]
    while draw.textlength(text, font=font) > SIDE:
        text = text.rstrip("…")[:-1] + "…"
    return text


def _tile(seen: ScoredObject, images: ImageSource) -> Image.Image:
    height, width = seen.drawn["size"]
    masks = (decode_rle(seen.drawn), DRAWN), (decode_rle(seen.found), FOUND)
    x0, y0, x1, y1 = _window(seen.bbox, [mask for mask, _ in masks], width, height)
    scale = SIDE / max(x1 - x0, y1 - y0)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    try:
        pixels = images.load(str(seen.picture.get("file_name")), (width, height))
        crop = Image.fromarray(pixels[y0:y1, x0:x1]).resize(size, Image.Resampling.BICUBIC)
    except ImageProblem:
        crop = Image.new("RGB", size, MISSING)
    canvas = np.array(crop)
    for mask, colour in masks:
        window = mask.full(height, width)[y0:y1, x0:x1].view(np.uint8) * np.uint8(255)
        large = np.asarray(Image.fromarray(window).resize(size, Image.Resampling.BILINEAR)) > 127
        canvas[boundary(LocalMask(0, 0, large), LINE).mask] = colour
    return Image.fromarray(canvas)


def _window(bbox: Sequence[float], masks: Sequence[LocalMask], width: int, height: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of what shows the box and both masks, with a margin, inside the picture."""
    corners = [(bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])]
    corners += [(m.x0, m.y0, m.x0 + m.mask.shape[1], m.y0 + m.mask.shape[0]) for m in masks if m.mask.size]
    low, high = np.min(corners, axis=0)[:2], np.max(corners, axis=0)[2:]
    margin = 2 + MARGIN * float((high - low).max())
    x0, y0 = (int(v) for v in np.clip(np.floor(low - margin), 0, (width - 1, height - 1)))
    x1, y1 = (int(v) for v in np.clip(np.ceil(high + margin), (x0 + 1, y0 + 1), (width, height)))
    return x0, y0, x1, y1
