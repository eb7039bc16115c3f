"""Files of 16-bit colours, which Pillow reads and does not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np


def deep_png(values: np.ndarray, exif: bytes = b"") -> io.BytesIO:
    """A PNG of 16-bit colours uint16 [H,W,3 or 4], which Pillow itself cannot write. exif: behind the pixels."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    up = np.vstack([rows[:1], rows[1:] - rows[:-1]])  # filter 2: less the row above
    filters = np.array([[0], *[[2]] * (height - 1)], np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(np.hstack([filters, up]).tobytes())
    pieces = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"eXIf", exif) if exif else b"", chunk(b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(pieces))


def deep_tiff(values: np.ndarray, order: str) -> io.BytesIO:
    """An uncompressed TIFF of 16-bit colours uint16 [H,W,3]. order: "<" or ">", its bytes'."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: 3 * (16,), 259: 1, 262: 2, 273: 8, 277: 3, 278: height, 279: len(data)}
    bits = 8 + len(data)
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3, 3, bits) if tag == 258 else struct.pack(f"{order}HHII", tag, 4, 1, value)
        for tag, value in tags.items()
    )
    begin = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, bits + 6)
    body = data + struct.pack(f"{order}3H", *tags[258]) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return io.BytesIO(begin + body)
