"""Crops on the GPU, bit for bit those of `mal_trt.geometry.crops.read_crop`, and the pictures they are cut from."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.groups import groups_within
from mal_trt.cuda.module import Kernels
from mal_trt.geometry.crops import Frame
from mal_trt.geometry.frames import Frames

# Bytes of half-resized rows held at once; a single crop with more takes what it needs.
ROWS_LIMIT = 1 << 28
ALIGNMENT = 256  # bytes, of each picture among others
# Bytes that a pool keeps for the next pictures.
IDLE_LIMIT = 1 << 26

# `Crop` in crop.cu.
CROP = np.dtype(
    [
        ("picture", np.uint64),
        ("image", np.uint64),
        ("weights", np.int64, 2),
        ("row", np.int64),
        ("width", np.int32),
        ("height", np.int32),
        ("extended", np.int32, 4),
    ],
    align=True,
)


class DevicePicture(Protocol):
    """A picture on the GPU as other libraries hand it out: uint8 [H,W,3], contiguous.

    __cuda_array_interface__: its `data` is (pointer, whether it is read-only).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        ...

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


class Pixels(NamedTuple):
    """A picture on the GPU, uint8 [height,width,3] at `pointer`."""

    pointer: int
    width: int
    height: int

    @staticmethod
    def of(picture: DevicePicture) -> Pixels:
        """Where a picture of another library lies; that must stay alive as long as the pixels are used."""
        height, width, _ = picture.shape
        return Pixels(int(picture.__cuda_array_interface__["data"][0]), width, height)


class DevicePictures:
    """Pictures on the GPU, uint8 [height,width,3] each, until they are closed."""

    def __init__(self, pool: PicturePool, memory: Staging, pictures: list[Pixels]) -> None:
        self._pool, self._memory = pool, memory
        self.pictures = pictures

    def close(self) -> None:
        """Give their memory back; may be called twice. No queued work may use it."""
        if self.pictures:
            self.pictures = []
            self._pool.give(self._memory)

    def __enter__(self) -> DevicePictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PicturePool:
    """Memory for pictures that come and go, page-locked with its twin on the GPU; any thread may use it.

    idle: bytes kept for the next pictures.
    """

    def __init__(self, driver: Driver, idle: int = IDLE_LIMIT) -> None:
        self._driver, self._limit = driver, idle
        self._idle: list[tuple[int, Staging]] = []
        self._sizes: dict[Staging, int] = {}
        self._lock = threading.Lock()

    def upload(self, pictures: Sequence[np.ndarray], stream: int) -> DevicePictures:
        """Queue the copy of pictures, uint8 [H,W,3], to the GPU, in one go. The arrays are not needed afterwards."""
        ends = list(accumulate(-(-picture.nbytes // ALIGNMENT) * ALIGNMENT for picture in pictures))
        if not ends:
            return DevicePictures(self, Staging(self._driver), [])
        memory = self._take(ends[-1])
        try:
            room = memory.reserve(ends[-1])
            found = []
            for first, picture in zip([0, *ends], pictures, strict=False):
                np.copyto(room[first : first + picture.nbytes].reshape(picture.shape), picture)
                found.append(Pixels(memory.pointer + first, picture.shape[1], picture.shape[0]))
            memory.upload(ends[-1], stream)
            return DevicePictures(self, memory, found)
        except BaseException:
            self.give(memory)
            raise

    def give(self, memory: Staging) -> None:
        """Take a picture's memory back; if too much is idle, what was idle longest is freed."""
        with self._lock:
            self._idle.append((self._sizes.pop(memory), memory))
            while self._idle and sum(size for size, _ in self._idle) > self._limit:
                self._idle.pop(0)[1].close()

    def close(self) -> None:
        """Free what is idle, and from now on whatever is given back."""
        with self._lock:
            self._limit = -1
            while self._idle:
                self._idle.pop()[1].close()

    def _take(self, size: int) -> Staging:
        with self._lock:
            fitting = [at for at, (room, _) in enumerate(self._idle) if room >= size]
            if fitting:
                room, memory = self._idle.pop(min(fitting, key=lambda at: self._idle[at][0]))
            else:
                # An eighth more at most, so that pictures of like size can follow each other.
                step = 1 << max(16, size.bit_length() - 4)
                room, memory = -(-size // step) * step, Staging(self._driver)
                memory.reserve(room)
            self._sizes[memory] = room
            return memory


class Cropper:
    """Cuts crops into images [3,size,size], "uint8" or "float32"; for one stream and one thread at a time."""

    def __init__(self, driver: Driver, size: int, dtype: Any = np.uint8) -> None:
        self._size, self._dtype = size, str(np.dtype(dtype))
        self._kernels = Kernels(driver, "crop.cu")
        self._crops = Staging(driver)
        self._weights, self._bounds, self._rows = (DeviceBuffer(driver) for _ in range(3))

    def cut(
        self,
        pictures: Sequence[Pixels],
        frames: Sequence[Frame] | Frames,
        into: Sequence[int] | np.ndarray,
        stream: int,
    ) -> None:
        """Queue the crops of boxes, n of each: the picture, the frame, and the pointer its image goes to (uint64).

        All work that was queued by an earlier `cut` must be done.
        """
        count, size = len(frames), self._size
        if not count:
            return
        extended = Frames.of(frames).extended
        crops = self._crops.array(CROP, count)
        crops["picture"] = [picture.pointer for picture in pictures]
        crops["width"] = [picture.width for picture in pictures]
        crops["height"] = [picture.height for picture in pictures]
        crops["image"] = into
        crops["extended"] = extended
        sides = extended[:, 2:] - extended[:, :2]
        weights = (np.ceil(2 * np.maximum(sides / size, 1)).astype(np.int64) * 2 + 1) * size
        crops["weights"] = np.cumsum(weights).reshape(count, 2) - weights
        groups = groups_within(ROWS_LIMIT, sides[:, 1] * (3 * size))
        for first, last in groups:
            crops["row"][first:last] = np.cumsum(sides[first:last, 1]) - sides[first:last, 1]
        totals = [int(sides[first:last, 1].sum()) for first, last in groups]
        table = np.uint64(self._weights.reserve(int(weights.sum()) * 4))
        bounds = np.uint64(self._bounds.reserve(count * 4 * size * 4))
        scratch = np.uint64(self._rows.reserve(max(totals) * 3 * size))

        self._crops.upload(crops.nbytes, stream)
        pointer, side = np.uint64(self._crops.pointer), np.int32(size)
        launch = self._kernels.launch
        tables = pointer, np.int32(count), side, table, bounds
        self._kernels.launch_1d("crop_weights", count * 2 * size, stream, *tables)
        for (first, last), total in zip(groups, totals, strict=True):
            here, boxes = np.int32(first), np.int32(last - first)
            grid = (-(-total // 4), -(-size // 64), 1)
            rest = (side, table, bounds, scratch)
            launch("crop_rows", grid, (64, 4, 1), stream, pointer, here, boxes, np.int64(total), *rest)
            grid = (-(-size // 64), -(-size // 4), last - first)
            launch(f"crop_columns_{self._dtype}", grid, (64, 4, 1), stream, pointer, here, *rest)

    def close(self) -> None:
        """Free its memory; no queued work may use it."""
        for part in (self._kernels, self._crops, self._weights, self._bounds, self._rows):
            part.close()
