"""Pictures of more than 8 bits: as bright as the bits they use, in every way to read them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mal_trt.formats import pixels
from mal_trt.formats.depth import to_8_bits
from mal_trt.formats.images import open_images, read_picture, to_rgb
from mal_trt.formats.pixels import read_small

SHAPE = (20, 30)


def ramp(most: int) -> np.ndarray:
    """Values from 0 to `most`, int64 [20,30]."""
    return np.linspace(0, most, SHAPE[0] * SHAPE[1]).astype(np.int64).reshape(SHAPE)


def stored(image: Image.Image, format: str, **options: str) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream


def png(values: np.ndarray) -> io.BytesIO:
    """A PNG of 16-bit colours uint16 [H,W,3 or 4], which Pillow itself cannot write."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    up = np.vstack([rows[:1], rows[1:] - rows[:-1]])  # filter 2: less the row above
    filters = np.array([[0], *[[2]] * (height - 1)], np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(np.hstack([filters, up]).tobytes())
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def tiff(values: np.ndarray, order: str) -> io.BytesIO:
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


@pytest.mark.parametrize(("most", "bits"), [(200, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (20000, 16)])
def test_grey_uses_the_bits_that_its_largest_value_needs(most: int, bits: int) -> None:
    values = ramp(most)
    expected = np.repeat((values >> (bits - 8)).astype(np.uint8)[:, :, None], 3, axis=2)
    grey = [Image.fromarray(values.astype(kind)) for kind in ("<u2", ">u2", np.int32, np.float32)]
    files = [stored(grey[0], "PNG"), *(stored(image, "TIFF") for image in grey)]
    files.append(stored(grey[0], "TIFF", compression="tiff_lzw"))
    colours = np.dstack([values, values[::-1], values[:, ::-1]])
    for file in (*files, *map(io.BytesIO, (file.getvalue() for file in files))):
        np.testing.assert_array_equal(read_picture(file), expected)
        np.testing.assert_array_equal(read_small(file, (30, 20), (30, 20)), expected)
    for image in grey:
        np.testing.assert_array_equal(to_rgb(image), expected)
    alpha = np.full((*SHAPE, 1), 0xFFFF)
    for file in (png(colours), png(np.dstack([colours, alpha])), tiff(colours, "<"), tiff(colours, ">")):
        np.testing.assert_array_equal(read_picture(file), (colours >> (bits - 8)).astype(np.uint8))
        np.testing.assert_array_equal(read_small(file, (30, 20), (30, 20)), (colours >> (bits - 8)).astype(np.uint8))


def test_floating_point_from_0_to_1_is_multiplied_by_255() -> None:
    values = (ramp(1000) / 1000).astype(np.float32)
    read = read_picture(stored(Image.fromarray(values), "TIFF"))[..., 0]
    np.testing.assert_array_equal(read, np.rint(values * 255))


def test_odd_values() -> None:
    assert to_8_bits(np.array([-5, 0, 65536, 131071], np.int32), 131071).tolist() == [0, 0, 128, 255]
    odd = np.array([[np.nan, -np.inf, -1, 0, 128, 1023.5, np.inf]], np.float32)
    assert read_picture(stored(Image.fromarray(odd), "TIFF"))[0, :, 0].tolist() == [0, 0, 0, 0, 32, 255, 255]
    for nothing in (np.full((2, 2), np.nan, np.float32), np.full((2, 2), -7, np.float32)):
        assert not read_picture(stored(Image.fromarray(nothing), "TIFF")).any()


def test_bands_and_sources_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ramp(3000)
    (tmp_path / "grey.png").write_bytes(stored(Image.fromarray(values.astype(np.uint16)), "PNG").getvalue())
    (tmp_path / "colour.png").write_bytes(png(np.dstack([values] * 3)).getvalue())
    expected = np.repeat((values >> 4).astype(np.uint8)[:, :, None], 3, axis=2)
    source = open_images(tmp_path)
    for band in (pixels.BAND_PIXELS, 60):  # two rows
        monkeypatch.setattr(pixels, "BAND_PIXELS", band)
        for name in ("grey.png", "colour.png"):
            for by in (1, 2, 8):
                np.testing.assert_array_equal(source.load(name, (30, 20), by), expected)
