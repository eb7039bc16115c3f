"""Run lengths of many masks at once: written, to the byte as `rle_from_edges` does, and read. Also RLE as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from mal_trt.geometry.rle import DIGIT, MOST_DIGITS, RLE, digits_to_numbers, run_lengths

USUAL = 1 << 14  # numbers below this have their characters looked up in a table
END = 10  # between the texts: a newline, which is none of COCO's characters


def rles_from_edges(edges: np.ndarray, counts: np.ndarray, sides: np.ndarray) -> tuple[list[RLE], list[int]]:
    """COCO's compressed RLE of each mask, and its area in pixels.

    edges: those that `rle_from_edges` takes, of all masks one after the other, any integer type. counts: how many each
    mask has, int [n], even. sides: width and height of each mask's picture, int64 [n,2].
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
    """For each run of foreground, in the order of the RLEs: which mask's it is, and its start and end (exclusive) in
    column-major picture indices. Some are empty. ValueError if a mask's counts are not what COCO writes."""
    counts = [rle["counts"] for rle in rles]
    if any(isinstance(one, list) for one in counts):
        runs = [run_lengths(rle) for rle in rles]
        lengths = np.array([len(one) for one in runs], np.int64)
        values = np.concatenate(runs)
    else:
        values, lengths = _unpack(counts)
    # Made even for each mask: a background and a foreground in turn.
    odd = lengths % 2
    values = np.insert(values, np.cumsum(lengths)[odd > 0], 0) if odd.any() else values
    pairs = (lengths + odd) // 2
    mask = np.repeat(np.arange(len(pairs)), pairs)
    ends = _cumulated(values, np.cumsum(2 * pairs) - 2 * pairs, 2 * pairs)
    return mask, ends[0::2], ends[1::2]


def _unpack(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths of all masks one after the other, from COCO's compressed counts, and how many each mask has."""
    values, last = digits_to_numbers("".join(texts).encode("ascii"))
    until = np.cumsum([len(text) for text in texts])
    lengths = np.diff(np.searchsorted(last, until), prepend=0)
    if not lengths.all() or np.any(last[np.cumsum(lengths) - 1] != until - 1):
        raise ValueError("not COCO's compressed counts")
    # From the fourth on, each is a difference from the last but one: one sum over the backgrounds, one over the rest.
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
    """Running sums that start again at each of `starts`, over `lengths` values each."""
    sums = np.cumsum(values)
    before = np.where(starts > 0, sums[starts - 1], 0)
    sums -= np.repeat(before, lengths)
    return sums


def _switches(edges: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges without those where a mask goes off and on again at one index, and where each mask's edges now end.

    until: where they ended before.
    """
    again = edges[1:-1:2] == edges[2::2]
    if not again.any():
        return edges, until
    inner = until[(until > 0) & (until < len(edges))]
    again[inner // 2 - 1] = False  # the two are of different masks
    keep = np.ones(len(edges), bool)
    keep[1:-1:2] = keep[2::2] = ~again
    return edges[keep], np.concatenate([[0], np.cumsum(keep)])[until]


def _counts(edges: np.ndarray, until: np.ndarray, pixels: np.ndarray) -> list[str]:
    """COCO's compressed counts of each mask. until: where its edges end. pixels: how many its picture has."""
    number = len(until)
    if not number:
        return []
    # For each mask its edges, the end of its picture, and a place for the separator of the texts.
    ends = until + 2 * np.arange(1, number + 1)
    starts = np.concatenate([[0], ends[:-1]])
    own = np.ones(ends[-1], bool)
    own[ends - 1] = own[ends - 2] = False
    bounds = np.zeros(ends[-1] + 1, edges.dtype)  # one longer, so that each mask has two places behind its first
    bounds[:-1][own], bounds[ends - 2] = edges, pixels
    runs = bounds.copy()
    runs[1:] -= bounds[:-1]
    runs[starts] = bounds[starts]
    # From the fourth on, a run is written as its difference from the last but one.
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
    """Characters of the numbers from -USUAL to below USUAL, uint32."""
    words: np.ndarray = _characters(np.arange(-USUAL, USUAL))[:, 0].copy()
    return words


def _characters(values: np.ndarray) -> np.ndarray:
    """COCO's characters of numbers, the lowest digit first, zero bytes behind the last: uint32 [n,2] of four each."""
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
