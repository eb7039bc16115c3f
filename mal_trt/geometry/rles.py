"""Run lengths of many masks at once: written as `rle_from_edges` does, to the byte, and read; and RLE as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from mal_trt.geometry.rle import RLE, run_lengths

DIGIT = 5  # bits that a character of COCO's counts holds, beside one that says whether more follow
MOST_DIGITS = 7  # 35 bits
USUAL = 1 << 14  # run lengths and differences up to which their characters are looked up
END = 10  # a newline, which is none of COCO's characters


def rles_from_edges(edges: np.ndarray, counts: np.ndarray, sides: np.ndarray) -> tuple[list[RLE], list[int]]:
    """COCO's compressed RLE of each mask, and its area in pixels.

    edges: whole numbers, those of `rle_from_edges` of all masks, one after the other. counts: how many each has, int
    [n], even. sides: width and height of each mask's picture, int64 [n,2].
    """
    pixels = sides.prod(axis=1)
    kind = np.int32 if len(pixels) and pixels.max() < 1 << 31 else np.int64
    edges = edges.astype(kind, copy=False)
    until = np.cumsum(counts)
    filled = np.concatenate([[0], np.cumsum(edges[1::2] - edges[::2])])
    areas = np.diff(filled[until // 2], prepend=0)
    texts = _counts(*_switches(edges, until), pixels)
    rles = [{"size": [h, w], "counts": text} for text, (w, h) in zip(texts, sides.tolist(), strict=True)]
    return rles, areas.tolist()


def rle_json(rle: RLE) -> str:
    """A compressed RLE as JSON without spaces; of COCO's characters JSON escapes the backslash alone."""
    height, width = rle["size"]
    counts = rle["counts"].replace("\\", "\\\\")
    return f'{{"size":[{height},{width}],"counts":"{counts}"}}'


def run_ends(rles: Sequence[RLE]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask, start and end (exclusive) in column-major picture indices of each run of foreground, in the order of the
    RLEs; some are empty. ValueError if a mask's counts are not what COCO writes."""
    known = [rle["counts"] for rle in rles]
    if any(isinstance(counts, list) for counts in known):
        runs = [run_lengths(rle) for rle in rles]
        lengths = np.array([len(one) for one in runs], np.int64)
        values = np.concatenate(runs)
    else:
        values, lengths = _unpacked(known)
    # With an even number each, a background and a foreground in turn.
    odd = lengths % 2
    values = np.insert(values, np.cumsum(lengths)[odd > 0], 0) if odd.any() else values
    pairs = (lengths + odd) // 2
    mask = np.repeat(np.arange(len(pairs)), pairs)
    ends = _cumulated(values, np.cumsum(2 * pairs) - 2 * pairs, 2 * pairs)
    return mask, ends[0::2], ends[1::2]


def _unpacked(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths of all masks one after the other, from COCO's compressed counts, and how many each has."""
    raw = np.frombuffer("".join(texts).encode("ascii"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((raw & 0x20) == 0)
    until = np.cumsum([len(text) for text in texts])
    lengths = np.diff(np.searchsorted(last, until), prepend=0)
    whole = lengths.all() and len(last) and bool((last[np.cumsum(lengths) - 1] == until - 1).all())
    size = np.diff(last, prepend=-1)
    if not whole or np.any((raw < 0) | (raw > 63)) or size.max() > MOST_DIGITS:
        raise ValueError("not COCO's compressed counts")
    first = last - size + 1
    digit = np.arange(len(raw)) - np.repeat(first, size)
    values = np.add.reduceat((raw & 0x1F) << (DIGIT * digit), first)
    values -= ((raw[last] & 0x10) != 0) * (np.int64(1) << (DIGIT * size))
    # From the fourth on, a run is told by its difference from the last but one: two sums, taken in turn.
    starts = np.cumsum(lengths) - lengths
    odd = lengths % 2
    even = np.insert(values, (starts + lengths)[odd > 0], 0)
    pairs = (lengths + odd) // 2
    begin = np.cumsum(pairs) - pairs
    background, foreground = even[0::2].copy(), even[1::2]
    before = background[begin]
    background[begin] = 0
    background = _cumulated(background, begin, pairs)
    background[begin] = before
    even[0::2], even[1::2] = background, _cumulated(foreground, begin, pairs)
    if odd.any():
        even = np.delete(even, (np.cumsum(2 * pairs) - 1)[odd > 0])
    return even, lengths


def _cumulated(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums that begin anew at each of `starts`, `lengths` values of each."""
    sums = np.cumsum(values)
    before = np.where(starts > 0, sums[starts - 1], 0)
    sums -= np.repeat(before, lengths)
    return sums


def _switches(edges: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges without those where a mask is off and on at one index, and where each mask's end. until: where they did."""
    again = edges[1:-1:2] == edges[2::2]
    if not again.any():
        return edges, until
    inner = until[(until > 0) & (until < len(edges))]
    again[inner // 2 - 1] = False  # the two are of different masks
    keep = np.ones(len(edges), bool)
    keep[1:-1:2] = keep[2::2] = ~again
    return edges[keep], np.concatenate([[0], np.cumsum(keep)])[until]


def _counts(edges: np.ndarray, until: np.ndarray, pixels: np.ndarray) -> list[str]:
    """COCO's compressed counts of each mask. until: where its edges end. pixels: of its picture."""
    number = len(until)
    if not number:
        return []
    # For each mask its edges, the end of its picture, and a place for what parts the texts.
    ends = until + 2 * np.arange(1, number + 1)
    starts = np.concatenate([[0], ends[:-1]])
    own = np.ones(ends[-1], bool)
    own[ends - 1] = own[ends - 2] = False
    bounds = np.zeros(ends[-1] + 1, edges.dtype)  # so that each has two places behind its first
    bounds[:-1][own], bounds[ends - 2] = edges, pixels
    runs = bounds.copy()
    runs[1:] -= bounds[:-1]
    runs[starts] = bounds[starts]
    # From the fourth on, a run is told by its difference from the last but one.
    values = runs.copy()
    values[2:] -= runs[:-2]
    for place in (starts, starts + 1, starts + 2):
        values[place] = runs[place]
    last = ends - 2
    nothing = last[(runs[last] == 0) & (last > starts)]  # a mask that ends with its picture
    values[nothing] = values[ends - 1] = values[-1] = 0

    index = values + USUAL
    unusual = np.flatnonzero(index & -2 * USUAL)
    index[unusual] = 0
    words = _usual()[index]
    low, high = _characters(values[unusual]).T
    words[unusual] = low
    (separator,) = np.array([END, 0, 0, 0], np.uint8).view(np.uint32)
    words[ends - 1] = separator
    words[nothing] = words[-1] = 0
    longer = high > 0
    if longer.any():
        words = np.insert(words, unusual[longer] + 1, high[longer])
    text: str = words.tobytes().translate(None, b"\0").decode("ascii")
    return text.split("\n")[:number]


@cache
def _usual() -> np.ndarray:
    """Characters of the values from -USUAL to below USUAL, uint32."""
    words: np.ndarray = _characters(np.arange(-USUAL, USUAL))[:, 0].copy()
    return words


def _characters(values: np.ndarray) -> np.ndarray:
    """COCO's characters of numbers, the lowest digit first, nothing behind the last: uint32 [n,2] of four each."""
    found = np.zeros((len(values), 8), np.uint8)
    left = values.astype(np.int64)
    going = np.ones(len(values), bool)
    for place in range(MOST_DIGITS):
        rest = left >> DIGIT
        more = rest != -((left >> (DIGIT - 1)) & 1)  # else the digit's highest bit is the sign
        found[:, place] = np.where(going, (left & 31) + 32 * more + 48, 0)
        going &= more
        left = rest
        if not going.any():
            break
    return found.view(np.uint32)
