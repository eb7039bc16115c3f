"""Pictures of more than 8 bits: as bright as the bits they use, in every way to read them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_pictures import deep_png, deep_tiff
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
    for file in (
        deep_png(colours),
        deep_png(np.dstack([colours, alpha])),
        deep_tiff(colours, "<"),
        deep_tiff(colours, ">"),
    ):
        np.testing.assert_array_equal(read_picture(file), (colours >> (bits - 8)).astype(np.uint8))
        np.testing.assert_array_equal(read_small(file, (30, 20), (30, 20)), (colours >> (bits - 8)).astype(np.uint8))


def test_colours_that_are_turned_keep_their_low_bytes() -> None:
    """Pillow decodes the pixels to find an EXIF orientation that stands behind them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    colours = np.dstack([ramp(4000)] * 3)
    turned = np.rot90((colours >> 4).astype(np.uint8), -1)

    def file() -> io.BytesIO:
        return deep_png(colours, exif.tobytes().removeprefix(b"Exif\0\0"))

    np.testing.assert_array_equal(read_picture(file(), (20, 30)), turned)
    np.testing.assert_array_equal(read_small(file(), (20, 30), (20, 30)), turned)


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
    (tmp_path / "colour.png").write_bytes(deep_png(np.dstack([values] * 3)).getvalue())
    expected = np.repeat((values >> 4).astype(np.uint8)[:, :, None], 3, axis=2)
    source = open_images(tmp_path)
    for band in (pixels.BAND_PIXELS, 60):  # two rows
        monkeypatch.setattr(pixels, "BAND_PIXELS", band)
        for name in ("grey.png", "colour.png"):
            for by in (1, 2, 8):
                np.testing.assert_array_equal(source.load(name, (30, 20), by), expected)
