"""Pictures of the result: masks over a photo, and a sheet of many such photos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.morphology import dilate, erode

# Vivid, far apart in hue from one to the next, and readable under white or black text.
PALETTE = (
    (0, 184, 255),
    (255, 56, 92),
    (255, 190, 11),
    (131, 82, 255),
    (6, 214, 120),
    (255, 112, 20),
    (255, 71, 209),
    (0, 214, 201),
    (164, 222, 2),
    (64, 106, 255),
    (255, 133, 133),
    (186, 120, 60),
)
FILL = 0.36
HALO = 0.9
PAPER = (18, 20, 24)
DISPLAY_SIDE = 1600  # pixels of an overlay's longer side, unless told otherwise
BAND_PIXELS = 1 << 16  # painted at once, so that what is computed stays in the processor's cache


def display_size(width: int, height: int, side: int = DISPLAY_SIDE) -> tuple[int, int]:
    """(width, height) of a picture's overlay: its longer side `side` pixels at most; 0: the picture's own size."""
    longer = max(width, height)
    if not side or longer <= side:
        return width, height
    return max(1, round(width * side / longer)), max(1, round(height * side / longer))


def draw_overlay(
    picture: np.ndarray | Image.Image,
    masks: Sequence[LocalMask],
    boxes: Sequence[Sequence[float]] = (),
    names: Sequence[str] = (),
    full: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture with each mask in a colour of its own: translucent, outlined, its box a thin line.

    picture: uint8 [H,W,3] RGB, or an image. masks: in its pixels. boxes (XYXY pixels) and names: one per mask
    where given. full: (width, height) of the picture that masks and boxes belong to, where the one given is a smaller
    copy of it. Large objects are drawn first, so small ones stay visible. Returns RGB of the size of the one given.
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    canvas = np.array(image.convert("RGB"))
    height, width = canvas.shape[:2]
    scale = (width / full[0], height / full[1]) if full else (1.0, 1.0)
    line = max(1, round(max(height, width) / 400))
    order = sorted(range(len(masks)), key=lambda i: -_extent(masks[i], boxes[i] if boxes else None))
    for i in order:
        _paint(canvas, masks[i], scale, PALETTE[i % len(PALETTE)], line)
    result = Image.fromarray(canvas)
    draw = ImageDraw.Draw(result)
    for i in order if boxes else ():
        x0, x1 = (v * scale[0] for v in boxes[i][0::2])
        y0, y1 = (v * scale[1] for v in boxes[i][1::2])
        corners = (
            max(0, round(x0)),
            max(0, round(y0)),
            min(width, round(x1)) - 1,
            min(height, round(y1)) - 1,
        )
        if corners[0] > corners[2] or corners[1] > corners[3]:
            continue
        draw.rectangle(corners, outline=PALETTE[i % len(PALETTE)], width=max(1, line // 2))
        if names and names[i]:
            _tag(draw, names[i], corners, PALETTE[i % len(PALETTE)], width, height)
    return result


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 4, tile: int = 360, gap: int = 8) -> Image.Image:
    """Pictures in rows that all fill the sheet's width, each row as high as its pictures' shapes ask.

    columns: pictures per row. tile: average width of one, pixels; the sheet is columns * tile wide.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    columns = min(columns, len(pictures))
    inner = columns * tile - gap * (columns + 1)
    y = gap
    places: list[tuple[Image.Image, tuple[int, int, int, int]]] = []
    for start in range(0, len(pictures), columns):
        row = pictures[start : start + columns]
        # Very long or tall pictures get the nearest sane shape and a margin.
        shapes = [min(max(p.width / p.height, 0.5), 2.5) for p in row]
        missing = (columns - len(row)) * sum(shapes) / len(row)
        available = inner + gap * (columns - len(row))
        row_height = max(1, round(available / (sum(shapes) + missing)))
        x = gap
        for index, (picture, shape) in enumerate(zip(row, shapes, strict=True)):
            last = index == columns - 1
            cell = columns * tile - gap - x if last else round(shape * row_height)
            places.append((picture, (x, y, max(1, cell), row_height)))
            x += cell + gap
        y += row_height + gap
    sheet = Image.new("RGB", (columns * tile, y), PAPER)
    for picture, (x, top, cell, row_height) in places:
        scale = min(cell / picture.width, row_height / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        if abs(size[0] - cell) <= 2 and abs(size[1] - row_height) <= 2:
            size = (cell, row_height)
        fitted = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        sheet.paste(fitted, (x + (cell - size[0]) // 2, top + (row_height - size[1]) // 2))
    return sheet


def _extent(mask: LocalMask, box: Sequence[float] | None) -> float:
    return mask.area if box is None else (box[2] - box[0]) * (box[3] - box[1])


def _paint(
    canvas: np.ndarray, local: LocalMask, scale: tuple[float, float], colour: tuple[int, int, int], line: int
) -> None:
    """Blend one mask into the canvas: halo, fill, outline."""
    if not local.area:
        return
    left, top, mask = _scaled(local, scale, pad=line + 2)
    height, width = canvas.shape[:2]
    x0, x1 = max(0, left), min(width, left + mask.shape[1])
    y0, y1 = max(0, top), min(height, top + mask.shape[0])
    soft = ImageFilter.GaussianBlur(0.5)
    # At the picture's borders, too, the mask is outlined: what lies beyond counts as background.
    inside, grown, core = (
        np.asarray(Image.fromarray(values).filter(soft))[y0 - top : y1 - top, x0 - left : x1 - left]
        for values in (mask, dilate(mask, max(1, line // 2)), erode(mask, line))
    )
    step = max(1, BAND_PIXELS // max(1, x1 - x0))
    for first in range(0, y1 - y0, step):
        rows = slice(first, first + step)
        here = canvas[y0:y1, x0:x1][rows]
        body, halo, deep = (values[rows, :, None].astype(np.float32) / 255 for values in (inside, grown, core))
        pixels = here.astype(np.float32)
        pixels += (255 - pixels) * (HALO * np.clip(halo - body, 0, 1))
        pixels += (np.array(colour, np.float32) - pixels) * (FILL * deep + np.clip(body - deep, 0, 1))
        here[...] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _scaled(local: LocalMask, scale: tuple[float, float], pad: int) -> tuple[int, int, np.ndarray]:
    """How much of each pixel of a scaled picture a mask covers: corner x, y and uint8 [rows,columns] with a margin."""
    rows, columns = local.mask.shape
    values = local.mask.view(np.uint8) * np.uint8(255)
    if scale == (1.0, 1.0):
        return local.x0 - pad, local.y0 - pad, np.pad(values, pad)
    # Whole pixels of the scaled picture, each the mean of those of the mask under it.
    x0, x1 = math.floor(local.x0 * scale[0]), math.ceil((local.x0 + columns) * scale[0])
    y0, y1 = math.floor(local.y0 * scale[1]), math.ceil((local.y0 + rows) * scale[1])
    before = math.ceil(local.x0 - x0 / scale[0]), math.ceil(local.y0 - y0 / scale[1])
    after = (
        math.ceil(x1 / scale[0] - local.x0 - columns) + 1,
        math.ceil(y1 / scale[1] - local.y0 - rows) + 1,
    )
    whole = np.pad(values, ((before[1], after[1]), (before[0], after[0])))
    left, top = x0 / scale[0] - local.x0 + before[0], y0 / scale[1] - local.y0 + before[1]
    window = (left, top, left + (x1 - x0) / scale[0], top + (y1 - y0) / scale[1])
    image = Image.fromarray(whole).resize((x1 - x0, y1 - y0), Image.Resampling.BOX, box=window)
    return x0 - pad, y0 - pad, np.pad(np.asarray(image), pad)


def _tag(
    draw: ImageDraw.ImageDraw,
    name: str,
    corners: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    width: int,
    height: int,
) -> None:
    """The name on a chip at the box's top left corner, where the box is wide enough to carry it."""
    font = ImageFont.load_default(max(10, round(max(width, height) / 45)))
    x0, y0, x1, y1 = draw.textbbox((0, 0), name, font=font)
    pad = max(2, round((y1 - y0) / 4))
    chip_width, chip_height = round(x1 - x0) + 2 * pad, round(y1 - y0) + 2 * pad
    if chip_width > 1.1 * (corners[2] - corners[0]) or chip_height > 0.4 * (corners[3] - corners[1]):
        return
    left = min(corners[0], width - chip_width)
    top = corners[1] - chip_height if corners[1] >= chip_height else corners[1]
    draw.rectangle((left, top, left + chip_width - 1, top + chip_height - 1), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.text((left + pad - x0, top + pad - y0), name, font=font, fill=(0, 0, 0) if bright else (255, 255, 255))
