"""Pictures that clients send or name: measured before they are decoded, and never from outside the given folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.base.remote import is_url
from mal_trt.formats.images import ImageProblem, ImageSource, open_images, read_picture
from mal_trt.formats.pixels import begins_as_picture, open_picture
from mal_trt.serve.recent import Recent, pixels_of
from mal_trt.serve.security import inside

HEAD = 32
KEPT_PIXELS = 1 << 25  # of pictures asked for by name, which the page asks for box by box


def decoded(content: bytes, most_pixels: int, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of a picture file, uint8 [H,W,3] RGB as stored, or rotated if `expected`, width and height, asks for it.

    InputError if it is no picture, not of that size, or larger than `most_pixels`; its header tells before anything is
    decoded.
    """
    if not content:
        raise InputError("image: empty")
    if not begins_as_picture(content[:HEAD]):
        raise InputError("image: not a picture file; JPEG, PNG, WebP, TIFF, BMP and others are read")
    try:
        width, height = open_picture(io.BytesIO(content)).size
        if width * height > most_pixels:
            raise InputError(f"image: {width}x{height} pixels; the limit is {most_pixels / 1e6:.1f} million")
        return read_picture(io.BytesIO(content), expected)
    except ImageProblem as problem:
        raise InputError(f"image: {problem}") from None


def source_of(images: str | Path | None) -> tuple[ImageSource | None, Path | None]:
    """Pictures at a path and, where that is a folder, the folder that no name may leave."""
    if images is None:
        return None, None
    folder = Path(images)
    return open_images(images), folder if not is_url(images) and folder.is_dir() else None


class Pictures:
    """The pictures of a folder, a .tar or a single file, by name; some are kept decoded."""

    def __init__(self, images: str | Path | None, most_pixels: int) -> None:
        self._source, self._root = source_of(images)
        self._most_pixels = most_pixels
        self._kept: Recent[str, np.ndarray] = Recent(KEPT_PIXELS, pixels_of)

    @property
    def source(self) -> ImageSource | None:
        """Where they come from, None if no pictures were given."""
        return self._source

    def content(self, name: str) -> bytes:
        """A picture's file as stored; InputError if there is none of that name."""
        if self._root is not None:
            try:
                return inside(self._root, name).read_bytes()
            except OSError as error:
                raise InputError(f"{name[:80]!r}: cannot be read ({error.strerror})") from None
        if self._source is None:
            raise InputError("no pictures were given to the server; send the picture, or start it with --images")
        try:
            return self._source.read(name)
        except (ImageProblem, ValueError) as problem:
            raise InputError(f"{name[:80]!r}: {problem}") from None

    def pixels(self, name: str) -> np.ndarray:
        """A picture's pixels, uint8 [H,W,3] RGB, not to be changed; InputError as for `decoded`."""
        if (kept := self._kept.get(name)) is not None:
            return kept
        content = self.content(name)
        try:
            return self._kept.keep(name, decoded(content, self._most_pixels))
        except InputError as error:
            raise InputError(f"{name[:80]}: {str(error).removeprefix('image: ')}") from None
