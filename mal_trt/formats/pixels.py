"""A picture file's bytes as RGB pixels, whatever its mode. Where the bytes come from is `images`."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mal_trt.formats.jpeg import read_jpeg
from mal_trt.formats.picture_problem import (
    DAMAGED,
    EMPTY,
    NOT_A_PICTURE,
    OTHER_SIZE,
    TOO_LARGE,
    UNREADABLE,
    UNSUPPORTED,
    ImageProblem,
    one_line,
)

MAX_PIXELS = 1 << 29  # 512 Mpx: a 20,000 x 20,000 picture is 400 Mpx, 1.2 GB as RGB
BAND_PIXELS = 1 << 18  # 1 MB in Pillow: larger bands leave the cache, and each gets its memory anew
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# How the files that Pillow reads begin.
MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)

_open_lock = threading.Lock()


def begins_as_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes (32 are enough) is a picture by its content."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head.startswith(MAGIC) or head[4:12] in (b"ftypavif", b"ftypavis")


def read_picture(stream: BinaryIO, expected: tuple[int, int] | None = None, by: int = 1) -> np.ndarray:
    """Decode one picture file to uint8 [H,W,3] RGB; see `ImageSource.load`."""
    image = open_picture(stream)
    with _decoding():
        if expected is not None and image.size != expected:
            return to_rgb(_rotated(image, expected))
        if (pixels := read_jpeg(stream, image, by)) is not None:
            return pixels
        if by > 1:
            image.draft(None, (image.width // by, image.height // by))
        return to_rgb(image)


def read_small(stream: BinaryIO, expected: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Decode one picture file at a smaller size; see `ImageSource.load_small`."""
    image = open_picture(stream)
    with _decoding():
        if image.size != expected:
            image = _rotated(image, expected)
        else:
            image.draft("RGB", size)  # a JPEG's decoder can leave out fine detail
        small = Image.fromarray(to_rgb(image))
        # Two pixels for each that is wanted are enough for the eye.
        return small if small.size == size else small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever a decoder raises inside becomes an ImageProblem."""
    try:
        yield
    except ImageProblem:
        raise
    except MemoryError:
        raise ImageProblem(TOO_LARGE, "not enough memory") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageProblem(DAMAGED, one_line(error)) from None


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow image of any mode, uint8 [H,W,3] RGB. Converted in bands, so little else is held."""
    if image.mode == "F":
        raise ImageProblem(UNSUPPORTED, "floating-point pixels; 8 or 16 bits expected")
    image.load()
    width, height = image.size
    step = max(1, BAND_PIXELS // max(1, width))
    if step >= height:
        return _rgb(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        pixels[top:bottom] = _rgb(image.crop((0, top, width, bottom)))
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    image.info.pop("transparency", None)  # dropped in any case; Pillow would warn
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _rotated(image: Image.Image, expected: tuple[int, int]) -> Image.Image:
    width, height = image.size
    if (height, width) == expected and image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS:
        return ImageOps.exif_transpose(image)
    raise ImageProblem(OTHER_SIZE, f"{width}x{height}, the document says {expected[0]}x{expected[1]}")


def open_picture(stream: BinaryIO) -> Image.Image:
    """Pillow's image with only the header read, its size checked against our limit instead of Pillow's."""
    try:
        with _open_lock:  # Pillow's limit is a global
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(stream)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:
        if _length(stream) == 0:
            raise ImageProblem(EMPTY) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageProblem(UNREADABLE, error.strerror or one_line(error)) from None
        if isinstance(error, UnidentifiedImageError):
            raise ImageProblem(NOT_A_PICTURE) from None
        raise ImageProblem(DAMAGED, one_line(error)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageProblem(TOO_LARGE, f"{width}x{height}, the limit is {MAX_PIXELS >> 20} Mpx")
    return image


def _length(stream: BinaryIO) -> int | None:
    try:
        return stream.seek(0, io.SEEK_END)
    except OSError:
        return None
