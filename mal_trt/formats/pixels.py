"""A picture file's bytes as RGB pixels, whatever its mode. Where the bytes come from is `images`."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mal_trt.base.errors import one_line
from mal_trt.formats.depth import is_deep_grey, largest, low_byte_tiles, to_8_bits
from mal_trt.formats.jpeg import read_jpeg
from mal_trt.formats.picture_problem import (
    DAMAGED,
    EMPTY,
    NOT_A_PICTURE,
    OTHER_SIZE,
    TOO_LARGE,
    UNREADABLE,
    ImageProblem,
)

MAX_PIXELS = 1 << 29  # 512 Mpx: a 20,000 x 20,000 picture is 400 Mpx, 1.2 GB as RGB
LARGE_PIXELS = 1 << 26  # as RGB 200 MB: a machine may have too little memory for it, and be well otherwise
BAND_PIXELS = 1 << 18  # 1 MB in Pillow: larger bands leave the cache, and each gets its memory anew
# EXIF orientations that swap width and height, and what they do to pixels [H,W,3].
UPRIGHT = 1
QUARTER_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}
BACK = {6: 8, 8: 6}  # 5 and 7 undo themselves
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
    with _decoding(image):
        low_bytes = low_byte_tiles(image)  # before EXIF is asked for, which may read the pixels to find it
        orientation = _orientation(image, expected)
        by = by if orientation == UPRIGHT else 1
        if (pixels := read_jpeg(stream, image, by)) is None:
            if by > 1:
                image.draft(None, (image.width // by, image.height // by))
            pixels = _decoded(stream, image, low_bytes)
        return _turned(pixels, orientation)


def read_small(stream: BinaryIO, expected: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Decode one picture file at a smaller size; see `ImageSource.load_small`."""
    image = open_picture(stream)
    with _decoding(image):
        low_bytes = low_byte_tiles(image)
        orientation = _orientation(image, expected)
        if orientation == UPRIGHT:
            image.draft("RGB", size)  # a JPEG's decoder can leave out fine detail
        small = Image.fromarray(_turned(_decoded(stream, image, low_bytes), orientation))
        # Two pixels for each that is wanted are enough for the eye.
        return small if small.size == size else small.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)


def read_values(stream: BinaryIO) -> np.ndarray:
    """Decode a picture whose pixels are numbers, such as which object they belong to: int32 [H,W], greys and a
    palette's indices as they are stored, a colour as red + 256 green + 65,536 blue. ImageProblem if it is none."""
    image = open_picture(stream)
    with _decoding(image):
        if image.mode in ("1", "L", "P") or is_deep_grey(image):
            return np.asarray(image).astype(np.int32)
        return np.asarray(image.convert("RGB")).astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)


@contextmanager
def _decoding(image: Image.Image) -> Iterator[None]:
    """Whatever a decoder raises inside becomes an ImageProblem, but for a MemoryError of a picture that is small."""
    try:
        yield
    except ImageProblem:
        raise
    except MemoryError:
        if image.width * image.height < LARGE_PIXELS:
            raise  # the picture is not to blame
        raise ImageProblem(TOO_LARGE, "not enough memory") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageProblem(DAMAGED, one_line(error)) from None


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of a Pillow image of any mode, uint8 [H,W,3] RGB. Converted in bands, so little else is held.

    What has more than 8 bits is brought down to 8 as `depth.to_8_bits` does.
    """
    image.load()
    convert = _rgb
    if is_deep_grey(image):
        most = max(largest(np.asarray(band)) for _, band in _bands(image))
        convert = partial(_grey, most=most)
    pixels = np.empty((0, 0, 3), np.uint8)
    for rows, band in _bands(image):
        part = convert(band)
        if rows == slice(0, image.height):
            return part
        if not pixels.size:
            pixels = np.empty((image.height, image.width, 3), np.uint8)
        pixels[rows] = part
    return pixels


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image in pieces, from the top, with their rows; a small image as it is."""
    width, height = image.size
    step = max(1, BAND_PIXELS // max(1, width))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        yield slice(top, bottom), image if bottom - top == height else image.crop((0, top, width, bottom))


def _rgb(image: Image.Image) -> np.ndarray:
    image.info.pop("transparency", None)  # dropped in any case; Pillow would warn
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey(image: Image.Image, most: float) -> np.ndarray:
    return np.repeat(to_8_bits(np.asarray(image), most)[:, :, None], 3, axis=2)


def _decoded(stream: BinaryIO, image: Image.Image, low_bytes: list[Any] | None) -> np.ndarray:
    """Pixels of the picture file that `image` was opened from, uint8 [H,W,3] RGB. low_bytes: its `low_byte_tiles`."""
    pixels = to_rgb(image)
    # Of 16-bit colours these are the high bytes, all that is kept of a picture that uses more than 14 bits.
    if low_bytes is None or (top := int(pixels.max(initial=0))) >= 1 << 6:
        return pixels
    stream.seek(0)
    image = open_picture(stream)
    image.tile = low_bytes  # type: ignore[attr-defined]
    values = pixels.astype(np.uint16) << 8 | to_rgb(image)
    return to_8_bits(values, top << 8 | 0xFF)


def _orientation(image: Image.Image, expected: tuple[int, int] | None) -> int:
    """The EXIF orientation by which the decoded pixels get the expected size; ImageProblem if none does."""
    if expected is None or image.size == expected:
        return UPRIGHT
    width, height = image.size
    orientation: int = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    if (height, width) != expected or orientation not in QUARTER_TURNS:
        raise ImageProblem(OTHER_SIZE, f"{width}x{height}, the document says {expected[0]}x{expected[1]}")
    # Pillow turns TIFF itself.
    return BACK.get(orientation, orientation) if image.format == "TIFF" else orientation


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return pixels if orientation == UPRIGHT else np.ascontiguousarray(QUARTER_TURNS[orientation](pixels))


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
    if image.format == "TIFF" and _turns_late(image):
        with _decoding(image):
            image.load()
    return image


def _turns_late(image: Any) -> bool:
    """Whether Pillow is still to turn a TIFF that has swapped sides, and its size with it, as before version 11."""
    stored = (image.tag_v2.get(ExifTags.Base.ImageWidth), image.tag_v2.get(ExifTags.Base.ImageLength))
    return image.size == stored and image.getexif().get(ExifTags.Base.Orientation) in QUARTER_TURNS


def _length(stream: BinaryIO) -> int | None:
    try:
        return stream.seek(0, io.SEEK_END)
    except OSError:
        return None
