"""COCO's run length encoding (RLE) of a mask: written, read, and made from where each column switches on and off.

Masks come from logits in `geometry.paste`; run lengths of many masks at once are in `geometry.rle_batch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mal_trt.geometry.local_mask import LocalMask

RLE = dict[str, Any]
DIGIT = 5  # bits in a character of COCO's counts, beside one that says whether more follow
MOST_DIGITS = 7  # characters of one number: 35 bits


def encode_rle(local: LocalMask, height: int, width: int) -> RLE:
    """COCO's compressed RLE {"size": [height, width], "counts": str} of a mask in a height x width picture.

    The same string as pycocotools.mask.encode of the whole canvas, which is never made.
    """
    rows, columns = local.mask.shape
    if local.mask.size and not (0 <= local.y0 <= height - rows and 0 <= local.x0 <= width - columns):
        raise ValueError(f"a {columns}x{rows} mask at ({local.x0}, {local.y0}) leaves its {width}x{height} picture")
    return rle_from_edges(column_edges(local.mask.T, local.x0, local.y0, height), height, width)


def rle_from_edges(edges: np.ndarray, height: int, width: int) -> RLE:
    """COCO's compressed RLE from the column-major picture indices where a mask switches on, off, on, ...

    edges: int64 [2n], each column's own, so a run that goes on in the next column is off and on at one index.
    """
    bounds = np.concatenate([[0], edges, [height * width]])
    keep = np.ones(len(bounds), bool)
    keep[2:-2:2] = keep[3:-1:2] = edges[1:-1:2] != edges[2::2]
    bounds = bounds[keep]
    runs = bounds[1:] - bounds[:-1]
    return compress(runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs, height, width)


def decode_rle(rle: RLE) -> LocalMask:
    """The mask of a COCO RLE (counts compressed or a list) in its smallest window."""
    height = int(rle["size"][0])
    runs = run_lengths(rle)
    edges = np.cumsum(runs)
    starts, ends = edges[0::2][: len(runs) // 2], edges[1::2]
    solid = ends > starts
    starts, ends = starts[solid], ends[solid]
    if not starts.size:
        return LocalMask(0, 0, np.zeros((0, 0), bool))
    x0, x1 = int(starts[0] // height), int((ends[-1] - 1) // height) + 1
    steps = np.zeros((x1 - x0) * height + 1, np.int8)
    np.add.at(steps, starts - x0 * height, 1)
    np.add.at(steps, ends - x0 * height, -1)
    mask = np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(x1 - x0, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    return LocalMask(x0, y0, mask[y0:y1])


def resized_rle(rle: RLE, height: int, width: int) -> RLE:
    """The mask of a compressed RLE in a picture resized to height x width: each pixel takes its nearest one's value."""
    before_height, before_width = rle["size"]
    mask = decode_rle(rle).full(before_height, before_width)
    rows, columns = (
        ((np.arange(after) + 0.5) * before / after).astype(np.int64)
        for after, before in ((height, before_height), (width, before_width))
    )
    return encode_rle(LocalMask(0, 0, mask[np.ix_(rows, columns)]), height, width)


def run_lengths(rle: RLE) -> np.ndarray:
    """Run lengths of a COCO RLE, int64 [n]: background first, then foreground and background in turn.

    ValueError if the compressed counts are not what COCO writes.
    """
    counts = rle["counts"]
    return np.asarray(counts, np.int64) if isinstance(counts, list) else _unpack(counts)


def compress(runs: np.ndarray, height: int, width: int) -> RLE:
    """Compressed COCO RLE of run lengths, int64 [n], that add up to height * width."""
    from pycocotools import mask as coco

    packed = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def column_edges(columns: np.ndarray, x0: int, y0: int, height: int) -> np.ndarray:
    """Column-major picture indices where a transposed mask [columns, rows] switches on, off, on, ..."""
    count, rows = columns.shape
    padded = np.zeros((count, rows + 2), np.int8)
    padded[:, 1:-1] = columns
    column, row = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), rows + 1)
    return (column + x0) * height + row + y0


def digits_to_numbers(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The numbers that COCO's characters stand for, int64 [n], and where the last character of each is, int64 [n].

    A character holds 5 bits, the lowest first, and whether more follow. ValueError if COCO would not write this.
    """
    raw = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((raw & 0x20) == 0)
    if np.any((raw < 0) | (raw > 63)) or not last.size or last[-1] != len(raw) - 1:
        raise ValueError("not COCO's compressed counts")
    length = np.diff(last, prepend=-1)
    if length.max() > MOST_DIGITS:
        raise ValueError("a run length of more than 35 bits")
    first = last - length + 1
    digit = np.arange(len(raw)) - np.repeat(first, length)
    numbers = np.add.reduceat((raw & 0x1F) << (DIGIT * digit), first)
    numbers -= ((raw[last] & 0x10) != 0) * (np.int64(1) << (DIGIT * length))
    return numbers, last


def _unpack(counts: str | bytes) -> np.ndarray:
    """Run lengths of COCO's compressed counts. From the fourth on each is written as its difference from the last but
    one."""
    runs, _ = digits_to_numbers(counts.encode("ascii") if isinstance(counts, str) else counts)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
