"""Pictures that clients send or name: measured before they are decoded, and never from outside the given folder."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.formats.images import ImageProblem, ImageSource, open_images, read_picture
from mal_trt.formats.pixels import begins_as_picture, open_picture
from mal_trt.serve.security import inside

HEAD = 32
KEPT_PIXELS = 1 << 25  # of pictures asked for by name, which the page asks for box by box


def decoded(content: bytes, most_pixels: int, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Pixels of a picture file, uint8 [H,W,3] RGB as stored, or rotated if `expected`, width and height, asks for it;
    InputError if it is none, or not of that size, or too large, told by its header alone."""
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


class Pictures:
    """The pictures of a folder, a .tar or a single file, by name; some are kept decoded."""

    def __init__(self, images: Path | None, most_pixels: int) -> None:
        self._root = images if images is not None and images.is_dir() else None
        self._source: ImageSource | None = open_images(images) if images is not None else None
        self._most_pixels = most_pixels
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

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
        with self._lock:
            if (kept := self._kept.get(name)) is not None:
                self._kept.move_to_end(name)
                return kept
        content = self.content(name)
        try:
            pixels = decoded(content, self._most_pixels)
        except InputError as error:
            raise InputError(f"{name[:80]}: {str(error).removeprefix('image: ')}") from None
        with self._lock:
            self._kept[name] = pixels
            while len(self._kept) > 1 and sum(p.shape[0] * p.shape[1] for p in self._kept.values()) > KEPT_PIXELS:
                self._kept.popitem(last=False)
        return pixels
