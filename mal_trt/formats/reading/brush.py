"""Label Studio's brushes: masks packed as a stream of bits, runs of the picture's RGBA values. `writers.label_studio`
packs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mal_trt.formats.pixels import MAX_PIXELS

CHANNELS = 4
COVERED = 128  # least alpha of a pixel that belongs to the mask: the rim of a stroke is half transparent


def brush_mask(packed: Any, width: int, height: int) -> np.ndarray:
    """The mask of a brush, bool [height,width]; packed: bytes as a list of numbers. ValueError if they are none, or not
    for a picture of that size."""
    try:
        bits = _Bits(bytes(packed))
    except TypeError:
        raise ValueError("not a list of bytes") from None
    total, depth = bits.take(32), bits.take(5) + 1
    sizes = [bits.take(4) + 1 for _ in range(4)]
    if total != width * height * CHANNELS or width * height > MAX_PIXELS:
        raise ValueError(f"{total} values, not those of a picture of {width}x{height}")
    values = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        repeated = bits.take(1)
        end = at + bits.take(sizes[bits.take(2)]) + 1
        if end > total:
            raise ValueError("runs beyond the picture")
        values[at:end] = bits.take(depth) if repeated else [bits.take(depth) for _ in range(end - at)]
        at = end
    return values.reshape(height, width, CHANNELS)[:, :, 3] >= COVERED


class _Bits:
    """Numbers of some bits each, highest first, from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, bits: int) -> int:
        """The next number, of at most 32 bits; ValueError behind the end."""
        first, skipped = divmod(self._at, 8)
        self._at += bits
        if self._at > 8 * len(self._data):
            raise ValueError("cut short")
        window = self._data[first : first + 5]
        return int.from_bytes(window, "big") >> (8 * len(window) - skipped - bits) & ((1 << bits) - 1)
