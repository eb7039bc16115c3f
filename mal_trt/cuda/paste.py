"""Masks on the GPU: from logits to where each mask switches on and off, as `mal_trt.geometry.paste` finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.groups import groups_within
from mal_trt.cuda.module import Kernels
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.frames import Frames

SEGMENT = 64  # SEGMENT and CHUNK in paste.cu
CHUNK = 32
# Bytes of probabilities and switches held at once; a single mask that needs more takes what it needs.
SCRATCH_LIMIT = 1 << 28
GUESS = 4  # switches a column for which room is made; where there are more, the batch is pasted again
MOST_PIXELS = (1 << 32) - 1  # of a picture: indices have 32 bits

# `Mask` in paste.cu.
MASK = np.dtype(
    [
        ("logits", np.int64),
        ("probability", np.int64),
        ("word", np.int64),
        ("column", np.int64),
        ("chunk", np.int32),
        ("inner", np.int32, 4),
        ("corner", np.int32, 2),
        ("scale", np.float32, 2),
        ("window", np.int32, 2),
        ("extent", np.int32, 2),
        ("height", np.int32),
        ("threshold", np.float32),
    ],
    align=True,
)


@dataclass(frozen=True)
class _Group:
    """Masks first..last of a batch whose intermediate results fit the scratch memory together.

    inner: columns and rows of the largest inner box. values, words, columns, chunks: how many of them in all, see
    `Mask` in paste.cu; values are probabilities.
    """

    first: int
    last: int
    inner: tuple[int, int]
    values: int
    words: int
    columns: int
    chunks: int


class Paster:
    """Pastes one batch at a time; for one stream and one thread at a time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._kernels = Kernels(driver, "paste.cu")
        self._masks, self._totals, self._edges = (Staging(driver) for _ in range(3))
        self._probability, self._words, self._counts = (DeviceBuffer(driver) for _ in range(3))
        self._capacity = 0
        self._queued: tuple[int, tuple[int, int, int], int, list[_Group]] | None = None

    def queue(
        self,
        logits: int,
        shape: tuple[int, int, int],
        frames: Sequence[Frame] | Frames,
        thresholds: float | Sequence[float],
        stream: int,
    ) -> None:
        """Queue the masks of a batch: probability strictly above its threshold, inside the box and the picture.

        logits: pointer to float32 [N,h,w], which must stay until `edges` is back. thresholds: of all masks, or of each.
        InputError for a picture of more than MOST_PIXELS.
        """
        frames = Frames.of(frames)
        for width, height in frames.sides[frames.sides.prod(axis=1) > MOST_PIXELS].tolist():
            raise InputError(f"a picture of {width}x{height} px is too large here; use --crops cpu")
        count, size = len(frames), frames.side
        masks = self._masks.array(MASK, count)
        groups = _describe(masks, shape, frames, thresholds)
        self._totals.reserve(count * 8)
        for buffer, most in (
            (self._probability, max(group.values for group in groups) * 4),
            (self._words, max(group.words for group in groups) * 8),
            (self._counts, max(group.columns + group.chunks for group in groups) * 4),
        ):
            buffer.reserve(max(most, 1))
        self._make_room(GUESS * int(masks["extent"][:, 0].sum()))
        self._queued = logits, shape, size, groups
        self._masks.upload(masks.nbytes, stream)
        self._paste(stream)

    def edges(self, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """Wait for the batch. Returns the indices that `rles_from_edges` takes, uint32, and how many each box has,
        int64 [N]; both stay until the next `queue`."""
        if self._queued is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        count = self._queued[-1][-1].last
        self._driver.synchronize(stream)
        totals = self._totals.array(np.int64, count)
        total = int(totals.sum())
        if total > self._capacity:
            self._make_room(total + total // 2)
            self._paste(stream)
        if total:
            self._edges.download(total * 4, stream)
            self._driver.synchronize(stream)
        self._queued = None
        return self._edges.array(np.uint32, total), totals

    def close(self) -> None:
        """Free its memory; no queued work may use it."""
        for part in (
            self._kernels,
            self._masks,
            self._totals,
            self._edges,
            self._probability,
            self._words,
            self._counts,
        ):
            part.close()

    def _make_room(self, edges: int) -> None:
        capacity, self._capacity = max(self._capacity, edges, 1), 0
        self._edges.reserve(capacity * 4)
        self._capacity = capacity

    def _paste(self, stream: int) -> None:
        assert self._queued
        logits, (count, height, width), size, groups = self._queued
        launch, launch_1d = self._kernels.launch, self._kernels.launch_1d
        masks, totals, edges = (np.uint64(b.pointer) for b in (self._masks, self._totals, self._edges))
        probability, words, counts = (np.uint64(b.pointer) for b in (self._probability, self._words, self._counts))
        shape = np.int32(height), np.int32(width), np.float32(height / size), np.float32(width / size)
        for group in groups:
            here, boxes = np.int32(group.first), np.int32(group.last - group.first)
            chunks = np.uint64(int(counts) + group.columns * 4)
            if group.words:
                self._driver.fill(int(counts), 0, (group.columns + group.chunks) * 4, stream)
                grid = (-(-group.inner[0] // 32), -(-group.inner[1] // 4), int(boxes))
                given = np.uint64(logits), *shape, probability
                launch("paste_probability", grid, (32, 4, 1), stream, masks, here, *given)
                looked = np.int64(group.words), np.int32(size), probability, words, counts, chunks
                launch_1d("paste_switches", group.words, stream, masks, here, boxes, *looked)
            launch("paste_offsets", (int(boxes), 1, 1), (1, 1, 1), stream, masks, here, boxes, chunks, totals)
            if group.words:
                found = np.int64(group.columns), words, counts, chunks, totals, edges, np.int64(self._capacity)
                launch_1d("paste_edges", group.columns, stream, masks, here, boxes, *found)
        self._totals.download(count * 8, stream)


def _describe(
    masks: np.ndarray, shape: tuple[int, int, int], frames: Frames, thresholds: float | Sequence[float]
) -> list[_Group]:
    """Fill in the descriptions, [n] of MASK. Returns the groups they are pasted in."""
    count, size = len(frames), frames.side
    extended, inner, sides = frames.extended, frames.inner, frames.sides
    corner, length = extended[:, :2], extended[:, 2:] - extended[:, :2]
    # Picture pixels that the box can reach, and at least one more on each side: those beyond come out empty.
    scale = size / length
    first = np.floor(corner + (inner[:, :2] - 0.5) / scale).astype(np.int64) - 2
    last = np.ceil(corner + (inner[:, 2:] + 0.5) / scale).astype(np.int64) + 2
    first = np.maximum(first, np.maximum(corner, 0))
    last = np.minimum(last, np.minimum(extended[:, 2:], sides))
    extent = np.where(((last > first) & (inner[:, 2:] > inner[:, :2])).all(axis=1)[:, None], last - first, 0)

    masks["logits"] = np.arange(count) * (shape[1] * shape[2])
    masks["inner"], masks["corner"], masks["scale"] = inner, corner, scale
    masks["window"], masks["extent"] = first, extent
    masks["height"], masks["threshold"] = sides[:, 1], thresholds
    across = inner[:, 2:] - inner[:, :2]
    values = across.prod(axis=1)
    words = extent[:, 0] * (extent[:, 1] // SEGMENT + 1)
    chunks = -(-extent[:, 0] // CHUNK)
    groups = []
    for start, stop in groups_within(SCRATCH_LIMIT, values * 4 + words * 8):
        part = slice(start, stop)
        ends = {}
        for name, sizes in (("probability", values), ("word", words), ("column", extent[:, 0]), ("chunk", chunks)):
            until = np.cumsum(sizes[part])
            masks[name][part] = until - sizes[part]
            ends[name] = int(until[-1])
        wide, high = across[part].max(axis=0).tolist()
        group = _Group(start, stop, (wide, high), ends["probability"], ends["word"], ends["column"], ends["chunk"])
        groups.append(group)
    return groups
