"""Pictures looked up by name, wherever they are kept, as RGB pixels. Where they may be kept is `images`.

Boxes belong to the pixels as stored in the file, so an EXIF orientation is not applied. The one exception: a document
whose width and height fit only the rotated picture was made by a tool that rotates, and then the picture is rotated
too. TIFF is the other way round, as Pillow itself reads it: rotated, unless only the stored picture fits.

Alpha is dropped, not blended. More than 8 bits become 8 as `depth` says. Of several pages or frames the first is read.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import BinaryIO

import numpy as np
from PIL import Image

from mal_trt.base.errors import RunError, one_line
from mal_trt.formats.picture_names import Match, PictureNames
from mal_trt.formats.picture_problem import MISSING, UNREADABLE, ImageProblem
from mal_trt.formats.pixels import begins_as_picture, open_picture, read_picture, read_small

HEAD = 32  # bytes that tell a picture
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ImageSource(ABC):
    """Pictures looked up by the names a COCO document gives them; safe to read from several threads.

    renamed: the stored names of pictures that were found though the document calls them otherwise, by its names.
    """

    def __init__(self) -> None:
        self.renamed: dict[str, str] = {}

    def load(self, file_name: str, expected: tuple[int, int] | None = None, by: int = 1) -> np.ndarray:
        """Pixels of one picture, uint8 [H,W,3] RGB, rotated only if `expected` (width, height) asks for it.

        by: 2, 4 or 8 lets a JPEG's own transform divide both sides by it (rounded up); what is rotated or no JPEG still
        comes whole. ImageProblem if it is missing, is no readable picture, or is not of the expected size.
        """
        with self._opened(file_name) as stream:
            return read_picture(stream, expected, by)

    def load_small(self, file_name: str, expected: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """A picture, `expected` wide and high as for `load`, brought down to `size`: an RGB image to look at, whose
        decoder may have left out what cannot be seen."""
        with self._opened(file_name) as stream:
            return read_small(stream, expected, size)

    def size(self, file_name: str) -> tuple[int, int]:
        """(width, height) in pixels as stored, from the file's header alone; ImageProblem as for `load`."""
        with self._opened(file_name) as stream:
            return open_picture(stream).size

    def read(self, file_name: str) -> bytes:
        """The picture's file as it is stored; ImageProblem if it is missing or cannot be read."""
        with self._opened(file_name) as stream:
            return stream.read()

    def find(self, file_name: str) -> str:
        """Stored name of the picture `file_name`: that path, a path ending so, or the only one that may be meant."""
        return self._noted(file_name, self._names.match(file_name))

    def find_id(self, image_id: int | str) -> str:
        """Stored name of the picture whose stem is an id: as written (a path without its ending, too), zero-padded, or
        equal as a number."""
        return self._noted(str(image_id), self._names.match_id(image_id))

    def find_stem(self, *paths: str) -> str:
        """Stored name of a label file's picture, whose path without its ending may be any of these, likeliest first."""
        return self._noted(paths[0], self._names.match_stem(*paths))

    def examples(self, count: int) -> list[str]:
        """Names of some of the pictures that are there."""
        return self._names.examples(count)

    def names(self) -> list[str]:
        """Stored names of all pictures, in the order of the folder or file."""
        return self._names.all()

    def count(self) -> int:
        """How many pictures are there, going by their names."""
        return self._names.count()

    def _noted(self, wanted: str, match: Match) -> str:
        if match.renamed:
            self.renamed[wanted] = match.name
        return match.name

    @contextmanager
    def _opened(self, file_name: str) -> Iterator[BinaryIO]:
        name = self.find(file_name)
        try:
            with self._stream(name) as stream:
                yield stream
        except FileNotFoundError:
            raise ImageProblem(MISSING, name) from None
        except MemoryError:
            raise _exhausted(name, "not enough memory") from None
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise _exhausted(name, error.strerror) from None
            raise ImageProblem(UNREADABLE, f"{name}: {error.strerror or one_line(error)}") from None

    @cached_property
    def _names(self) -> PictureNames:
        return PictureNames(self._list(), self._is_picture)

    def _is_picture(self, name: str) -> bool:
        try:
            with self._stream(name) as stream:
                return begins_as_picture(stream.read(HEAD))
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise _exhausted(name, error.strerror) from None
            return False

    @abstractmethod
    def _list(self) -> Iterable[str]:
        """Stored names, with / between folders."""

    @abstractmethod
    def _stream(self, name: str) -> BinaryIO:
        """The bytes of one stored picture; OSError if they cannot be read."""


def _exhausted(name: str, why: str | None) -> RunError:
    """The error of a machine that ran out of something: it says nothing of the picture, which can be read later."""
    return RunError(
        f"{name}: cannot be read now ({why}); end other programs or raise the limit (`ulimit -a` shows it), then run "
        "again, `label` with --resume"
    )
