"""Test doubles of the kernels in mal_trt/cuda/kernels: the same arithmetic in NumPy, for `host_cuda.HostDriver`.

Tests say `HostDriver(KERNELS)`. Each function does what all threads of its kernel do together, and checks that there
are enough of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mal_trt.cuda.crop import CROP
from mal_trt.cuda.paste import CHUNK, MASK, SEGMENT
from mal_trt.cuda.quality import QUALITY_BOX

BITS = 22
BINS = 20
WHOLE = 1 << 24

Extent = tuple[int, int, int]
Taps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _covers(grid: Extent, block: Extent, *needed: int) -> None:
    for axis, threads in enumerate(needed):
        assert grid[axis] * block[axis] >= threads, f"{grid} x {block} threads for {needed}"


# crop.cu -------------------------------------------------------------------------------------------------------------


def crop_weights(grid: Extent, block: Extent, memory: Any, crops: Any, count: Any, size: Any, *tables: Any) -> None:
    weights, bounds = (int(table) for table in tables)
    _covers(grid, block, int(count) * 2 * int(size))
    ranges = memory.array(bounds, np.int32, (count, 2, 2, size))
    for crop, own in zip(memory.array(crops, CROP, int(count)), ranges, strict=True):
        for axis in range(2):
            side = int(crop["extended"][axis + 2] - crop["extended"][axis])
            scale = float(np.float32(side)) / int(size)
            reach = max(scale, 1.0)
            centre = (np.arange(size) + 0.5) * scale
            first = np.maximum((centre - 2 * reach + 0.5).astype(np.int64), 0)
            last = np.minimum((centre + 2 * reach + 0.5).astype(np.int64), side)
            at = first + np.arange((last - first).max())[:, None]
            weight = np.where(at < last, _bicubic((at - centre + 0.5) * (1 / reach)), 0)
            weight /= np.cumsum(weight, axis=0)[-1]  # one after the other, as a loop adds
            fixed = np.where(weight < 0, -0.5, 0.5) + weight * (1 << BITS)
            memory.array(weights + 4 * int(crop["weights"][axis]), np.int32, at.shape)[...] = np.trunc(fixed)
            own[axis] = first, last - first


def crop_rows(
    grid: Extent, block: Extent, memory: Any, crops: Any, first: Any, count: Any, total: Any, size: Any, *rest: Any
) -> None:
    weights, bounds, scratch = (int(pointer) for pointer in rest)
    assert grid[0] * block[1] >= total and grid[1] * block[0] >= size, f"{grid} x {block} threads"
    for crop, begin, weight in _tables(memory, crops, first, count, size, weights, bounds, axis=0):
        x0, y0, _, y1 = crop["extended"].tolist()
        picture = memory.array(crop["picture"], np.uint8, (crop["height"], crop["width"], 3))
        lines = picture[np.arange(y0, y1) % crop["height"]]
        out = memory.array(scratch + int(crop["row"]) * 3 * int(size), np.uint8, (3, y1 - y0, size))
        out[...] = _passed(
            lambda x, lines=lines, x0=x0: lines[:, (x0 + x) % lines.shape[1]], begin, weight[:, None]
        ).T.swapaxes(1, 2)


def _columns(dtype: Any) -> Callable[..., None]:
    def columns(grid: Extent, block: Extent, memory: Any, crops: Any, first: Any, size: Any, *rest: Any) -> None:
        weights, bounds, scratch = (int(pointer) for pointer in rest)
        _covers(grid, block, size, size)
        for crop, begin, weight in _tables(memory, crops, first, grid[2], size, weights, bounds, axis=1):
            high = int(crop["extended"][3] - crop["extended"][1])
            rows = memory.array(scratch + int(crop["row"]) * 3 * int(size), np.uint8, (3, high, size))
            out = memory.array(crop["image"], dtype, (3, size, size))
            out[...] = _passed(lambda y, rows=rows, high=high: rows[:, np.minimum(y, high - 1)], begin, weight)

    return columns


def _tables(
    memory: Any, crops: Any, first: Any, count: Any, size: Any, weights: int, bounds: int, axis: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Crops first..first+count, each with its first source pixels [S] and weights [taps,S], zero past the last."""
    end = int(first) + int(count)
    ranges = memory.array(bounds, np.int32, (end, 2, 2, size))
    for index, crop in enumerate(memory.array(crops, CROP, end)):
        if index >= first:
            begin, taps = ranges[index, axis]
            table = memory.array(weights + 4 * int(crop["weights"][axis]), np.int32, (taps.max(), size))
            yield crop, begin, np.where(np.arange(taps.max())[:, None] < taps, table, 0)


def _passed(source: Callable[[np.ndarray], np.ndarray], begin: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """One pass of the resize: source(indices [S]) weighted and summed over the taps, rounded to 8 bits."""
    total: Any = 1 << (BITS - 1)
    for tap, own in enumerate(weight):
        total = total + source(begin + tap).astype(np.int32) * own[..., None]
    return np.clip(total >> BITS, 0, 255)


def _bicubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0))


# quality.cu ----------------------------------------------------------------------------------------------------------


def quality_rows(
    grid: Extent, block: Extent, memory: Any, masks: Any, count: Any, logits: Any, height: Any, width: Any, sums: Any
) -> None:
    _covers(grid, block, int(count) * int(height))
    values = memory.array(logits, np.float32, (count, height, width)).astype(np.float64)
    out = memory.array(sums, np.float64, (count, height, 2))
    out[...] = 0
    for mask, own, rows in zip(memory.array(masks, QUALITY_BOX, int(count)), values, out, strict=True):
        x0, y0, x1, y1 = mask["cells"].tolist()
        with np.errstate(over="ignore"):
            sure = 1 / (1 + np.exp(-own[y0:y1, x0:x1]))
        inside = sure > mask["threshold"]
        rows[y0:y1] = np.stack([(sure * inside).sum(axis=1), np.where(inside, 1, sure).sum(axis=1)], axis=1)


def quality_shares(grid: Extent, block: Extent, memory: Any, count: Any, height: Any, sums: Any, quality: Any) -> None:
    _covers(grid, block, count)
    inside, either = memory.array(sums, np.float64, (count, height, 2)).sum(axis=1).T
    memory.array(quality, np.float64, int(count))[...] = inside / np.where(either > 0, either, 1)


# paste.cu ------------------------------------------------------------------------------------------------------------


def paste_probability(
    grid: Extent, block: Extent, memory: Any, masks: Any, first: Any, logits: Any, height: Any, width: Any, *rest: Any
) -> None:
    scale_y, scale_x, probability = rest
    for mask in memory.array(masks, MASK, int(first) + grid[2])[first:]:
        x0, y0, x1, y1 = mask["inner"].tolist()
        _covers(grid, block, x1 - x0, y1 - y0)
        values = memory.array(int(logits) + 4 * int(mask["logits"]), np.float32, (height, width))
        values = _resampled(values, _taps(int(height), scale_y, np.arange(y0, y1)))
        values = _resampled(values.T, _taps(int(width), scale_x, np.arange(x0, x1))).T
        with np.errstate(over="ignore"):
            power = np.exp(-values.astype(np.float64)).astype(np.float32)
        memory.array(int(probability) + 4 * int(mask["probability"]), np.float32, values.shape)[...] = 1 / (power + 1)


def paste_switches(
    grid: Extent, block: Extent, memory: Any, masks: Any, first: Any, count: Any, total: Any, size: Any, *rest: Any
) -> None:
    probability, words, counts, chunks = (int(pointer) for pointer in rest)
    _covers(grid, block, total)
    for mask in _masks(memory, masks, first, count):
        columns, rows = mask["extent"].tolist()
        if not columns:
            continue
        inner = mask["inner"].reshape(2, 2)
        soft = memory.array(probability + 4 * int(mask["probability"]), np.float32, (inner[1] - inner[0])[::-1])
        for axis in (1, 0):
            at = np.arange(mask["extent"][axis]) + mask["window"][axis] - mask["corner"][axis]
            soft = _resampled(soft, _inner_taps(int(size), mask["scale"][axis], at, *inner[:, axis].tolist())).T
        segments = rows // SEGMENT + 1
        padded = np.zeros((segments * SEGMENT + 1, columns), bool)
        padded[1 : rows + 1] = soft > mask["threshold"]
        bits = (padded[1:] != padded[:-1]).reshape(segments, SEGMENT, columns)
        places = np.uint64(1) << np.arange(SEGMENT, dtype=np.uint64)
        word = memory.array(words + 8 * int(mask["word"]), np.uint64, (segments, columns))
        word[...] = np.where(bits, places[:, None], np.uint64(0)).sum(axis=1, dtype=np.uint64)
        own = bits.sum(axis=(0, 1))
        memory.array(counts + 4 * int(mask["column"]), np.uint32, columns)[...] += own.astype(np.uint32)
        starts = np.arange(0, columns, CHUNK)
        sums = memory.array(chunks + 4 * int(mask["chunk"]), np.uint32, len(starts))
        sums += np.add.reduceat(own, starts).astype(np.uint32)


def paste_offsets(
    grid: Extent, block: Extent, memory: Any, masks: Any, first: Any, count: Any, chunks: Any, totals: Any
) -> None:
    _covers(grid, block, count)
    for index, mask in enumerate(_masks(memory, masks, first, count), int(first)):
        number = -(-int(mask["extent"][0]) // CHUNK)
        sums = memory.array(int(chunks) + 4 * int(mask["chunk"]), np.uint32, number) if number else np.zeros(0, int)
        memory.array(totals, np.int64, index + 1)[index] = sums.sum()
        sums[...] = np.cumsum(sums) - sums


def paste_edges(
    grid: Extent, block: Extent, memory: Any, masks: Any, first: Any, count: Any, total: Any, *rest: Any
) -> None:
    words, counts, chunks, totals, edges, capacity = (int(value) for value in rest)
    _covers(grid, block, total)
    out = memory.array(edges, np.uint32, capacity)
    before = memory.array(totals, np.int64, int(first) + int(count))
    for index, mask in enumerate(_masks(memory, masks, first, count), int(first)):
        columns, rows = mask["extent"].tolist()
        if not columns:
            continue
        word = memory.array(words + 8 * int(mask["word"]), np.uint64, (rows // SEGMENT + 1, columns))
        bits = (word[:, None] >> np.arange(SEGMENT, dtype=np.uint64)[:, None]) & np.uint64(1)
        column, row = np.nonzero(bits.reshape(-1, columns).T)
        own = memory.array(counts + 4 * int(mask["column"]), np.uint32, columns).astype(np.int64)
        starts = np.arange(0, columns, CHUNK)
        sums = memory.array(chunks + 4 * int(mask["chunk"]), np.uint32, len(starts)).astype(np.int64)
        behind = np.cumsum(own) - own
        place = np.repeat(sums - behind[starts], np.add.reduceat(own, starts)) + np.arange(len(column))
        place += int(before[:index].sum())
        room = place < capacity
        value = (column + mask["window"][0]) * int(mask["height"]) + row + mask["window"][1]
        out[place[room]] = value[room]


def _masks(memory: Any, masks: Any, first: Any, count: Any) -> np.ndarray:
    found: np.ndarray = memory.array(masks, MASK, int(first) + int(count))[int(first) :]
    return found


def _taps(source: int, scale: np.float32, at: np.ndarray) -> Taps:
    half = np.float32(0.5)
    position = np.maximum(scale * (at.astype(np.float32) + half) - half, 0)
    low = np.minimum(position.astype(np.int64), source - 1)
    weight_high = position - low.astype(np.float32)
    return low, np.minimum(low + 1, source - 1), np.float32(1) - weight_high, weight_high


def _inner_taps(size: int, scale: np.float32, at: np.ndarray, first: int, last: int) -> Taps:
    low, high, *weights = _taps(size, scale, at)
    inside = [(index >= first) & (index < last) for index in (low, high)]
    weight_low, weight_high = (
        np.where(part, weight, np.float32(0)) for part, weight in zip(inside, weights, strict=True)
    )
    low, high = (np.clip(index, first, last - 1) - first for index in (low, high))
    return low, high, weight_low, weight_high


def _resampled(values: np.ndarray, taps: Taps) -> np.ndarray:
    low, high, weight_low, weight_high = taps
    with np.errstate(invalid="ignore"):
        return values[low] * weight_low[:, None] + values[high] * weight_high[:, None]


# refine.cu -----------------------------------------------------------------------------------------------------------


def _weigh(dtype: Any) -> Callable[..., None]:
    def weigh(
        grid: Extent, block: Extent, memory: Any, boxes: Any, count: Any, image: Any, logits: Any, *rest: Any
    ) -> None:
        height, width, size = (int(n) for n in rest[:3])
        probability, cells, sums = rest[3:]
        shape = (int(count), height, width)
        _covers(grid, block, int(np.prod(shape)))
        x0, y0, x1, y1 = memory.array(boxes, np.int32, (count, 4)).T[..., None]
        shares = _share(height, size / height, y0, y1), _share(width, size / width, x0, x1)
        inside = (shares[0][:, :, None] * shares[1][:, None]).astype(np.float32)
        with np.errstate(over="ignore"):
            power = np.exp(-memory.array(logits, np.float32, shape).astype(np.float64)).astype(np.float32)
        q = inside / (1 + power)
        down, across = size // height, size // width
        pixels = memory.array(image, dtype, (count, 3, height, down, width, across)).astype(np.float32)
        # One after the other, as loops add: rows, then columns.
        mean = np.cumsum(np.cumsum(pixels, axis=3)[:, :, :, -1], axis=-1)[..., -1] / np.float32(down * across)
        level = np.clip(np.rint(mean * np.float32((BINS - 1) / 255)), 0, BINS - 1).astype(np.int64)
        cell = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]
        memory.array(probability, np.float32, shape)[...] = q
        memory.array(cells, np.int32, shape)[...] = cell
        weight = np.rint(q * np.float32(WHOLE)).astype(np.uint64)
        grids = memory.array(sums, np.uint64, (count, 2, BINS**3))
        for own, where, what in zip(grids, cell.reshape(int(count), -1), weight.reshape(int(count), -1), strict=True):
            np.add.at(own[0], where, what)
            np.add.at(own[1], where, np.uint64(WHOLE) - what)

    return weigh


def refine_smooth(grid: Extent, block: Extent, memory: Any, sums: Any, grids: Any, axis: Any, totals: Any) -> None:
    _covers(grid, block, int(grids) * BINS**2)
    cells = memory.array(sums, np.uint64, (grids, BINS, BINS, BINS))
    if totals:
        memory.array(totals, np.uint64, int(grids))[...] += cells.sum(axis=(1, 2, 3), dtype=np.uint64)
    lines = np.moveaxis(cells, int(axis) + 1, 1)
    for _ in range(2):
        smooth = 2 * lines
        smooth[:, 1:] += lines[:, :-1]
        smooth[:, :-1] += lines[:, 1:]
        lines[...] = smooth


def refine_sharpen(
    grid: Extent, block: Extent, memory: Any, probability: Any, cells: Any, sums: Any, totals: Any, *rest: Any
) -> None:
    count, area, logits = (int(n) for n in rest)
    _covers(grid, block, count * area)
    cell = memory.array(cells, np.int32, (count, 1, area))
    at_pixel = np.take_along_axis(memory.array(sums, np.uint64, (count, 2, BINS**3)), cell, axis=2).astype(np.float64)
    total = memory.array(totals, np.uint64, (count, 2, 1)).astype(np.float64)
    share = at_pixel / (np.maximum(total, 1e-6 * WHOLE) * 4096)
    likelihood = share[:, 0] / (share[:, 0] + share[:, 1] + 1e-12)
    refined = np.clip(np.sqrt(likelihood * memory.array(probability, np.float32, (count, area))), 1e-6, 1 - 1e-6)
    memory.array(logits, np.float32, (count, area))[...] = np.log(refined / (1 - refined))


def _share(cells: int, step: float, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    at = np.arange(cells)
    return np.maximum(np.minimum((at + 1) * step, last) - np.maximum(at * step, first), 0) / step


def _mirror(dtype: Any) -> Callable[..., None]:
    def mirror(grid: Extent, block: Extent, memory: Any, image: Any, total: Any, width: Any, out: Any) -> None:
        _covers(grid, block, total)
        shape = (int(total) // int(width), width)
        memory.array(out, dtype, shape)[...] = memory.array(image, dtype, shape)[:, ::-1]

    return mirror


def logits_average(
    grid: Extent, block: Extent, memory: Any, logits: Any, mirrored: Any, total: Any, width: Any
) -> None:
    _covers(grid, block, total)
    values, others = (memory.array(p, np.float32, (int(total) // int(width), width)) for p in (logits, mirrored))
    values[...] = (values + others[:, ::-1]) / 2


def logits_nan(grid: Extent, block: Extent, memory: Any, logits: Any, total: Any, flag: Any) -> None:
    _covers(grid, block, total)
    if np.isnan(memory.array(logits, np.float32, int(total))).any():
        memory.array(flag, np.int32, 1)[0] = 1


KERNELS: dict[str, Callable[..., None]] = {
    "crop_weights": crop_weights,
    "crop_rows": crop_rows,
    "crop_columns_uint8": _columns(np.uint8),
    "crop_columns_float32": _columns(np.float32),
    "paste_probability": paste_probability,
    "paste_switches": paste_switches,
    "paste_offsets": paste_offsets,
    "paste_edges": paste_edges,
    "quality_rows": quality_rows,
    "quality_shares": quality_shares,
    "refine_weigh_uint8": _weigh(np.uint8),
    "refine_weigh_float32": _weigh(np.float32),
    "refine_smooth": refine_smooth,
    "refine_sharpen": refine_sharpen,
    "mirror_uint8": _mirror(np.uint8),
    "mirror_float32": _mirror(np.float32),
    "logits_average": logits_average,
    "logits_nan": logits_nan,
}
