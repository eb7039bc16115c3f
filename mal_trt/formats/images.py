"""Pictures from a folder, a tar file or a single file, as RGB pixels.

Boxes belong to the pixels as stored in the file, which is how pycocotools and Pillow readers see them, so an
EXIF orientation is not applied. The one exception: a document whose width and height fit only the rotated
picture was made by a tool that rotates, and then the picture is rotated too.

Alpha is dropped, not blended. 16-bit greyscale keeps its high byte (value >> 8).
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mal_trt.base.errors import InputError

MAX_PIXELS = 1 << 29  # 512 Mpx: a 20,000 x 20,000 picture is 400 Mpx, 1.2 GB as RGB
BAND_PIXELS = 1 << 22
PADDED_DIGITS = 12  # COCO pads picture ids to 12 digits in file names
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height

MISSING = "picture missing"
EMPTY = "picture file is empty"
NOT_A_PICTURE = "not a picture"
DAMAGED = "picture truncated or damaged"
TOO_LARGE = "picture too large"
UNSUPPORTED = "unsupported pixel format"
OTHER_SIZE = "picture size differs from the document"
AMBIGUOUS = "several pictures fit the name"

_open_lock = threading.Lock()


class ImageProblem(Exception):
    """One picture that cannot be used: its boxes are skipped, the run goes on.

    reason: a short clause, the same for every picture with this problem. detail: what was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.detail = detail


class ImageSource(ABC):
    """Pictures looked up by the names a COCO document gives them; safe to read from several threads."""

    def load(self, file_name: str, expected: tuple[int, int] | None = None) -> np.ndarray:
        """Pixels of one picture, uint8 [H,W,3] RGB, rotated only if `expected` (width, height) asks for it.

        ImageProblem if it is missing, is no readable picture, or is not of the expected size.
        """
        with self._stream(self.find(file_name)) as stream:
            return read_picture(stream, expected)

    def load_small(self, file_name: str, expected: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """A picture, `expected` wide and high as for `load`, brought down to `size`: an RGB image to look at, whose
        decoder may have left out what cannot be seen."""
        with self._stream(self.find(file_name)) as stream:
            return read_small(stream, expected, size)

    def size(self, file_name: str) -> tuple[int, int]:
        """(width, height) in pixels as stored, from the file's header alone; ImageProblem as for `load`."""
        with self._stream(self.find(file_name)) as stream:
            return _open(stream).size

    def read(self, file_name: str) -> bytes:
        """The picture's file as it is stored; ImageProblem if it is missing or cannot be read."""
        with self._stream(self.find(file_name)) as stream:
            return stream.read()

    def find(self, file_name: str) -> str:
        """Stored name of the picture `file_name`: that path, a path ending so, or that base name."""
        return self._names.match(file_name)

    def find_id(self, image_id: int | str) -> str:
        """Stored name of the picture whose stem is an id: as written (a path without its ending, too), zero-padded, or
        equal as a number."""
        return self._names.match_id(image_id)

    @cached_property
    def _names(self) -> _Names:
        return _Names(self._list())

    @abstractmethod
    def _list(self) -> Iterable[str]:
        """Stored names, with / between folders."""

    @abstractmethod
    def _stream(self, name: str) -> BinaryIO:
        """The bytes of one stored picture."""


def open_images(path: str | Path) -> ImageSource:
    """The pictures of a folder (with its subfolders), of an uncompressed .tar, or a single picture file."""
    path = Path(path)
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such folder or file; --images takes a folder, a .tar or one picture")
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(f"{path}: pictures cannot be read out of a compressed tar; unpack it first")
    return _Tar(path) if path.suffix.lower() == ".tar" else _File(path)


def read_picture(stream: BinaryIO, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Decode one picture file to uint8 [H,W,3] RGB; see `ImageSource.load`."""
    image = _open(stream)
    with _decoding():
        if expected is not None and image.size != expected:
            image = _rotated(image, expected)
        return to_rgb(image)


def read_small(stream: BinaryIO, expected: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Decode one picture file at a smaller size; see `ImageSource.load_small`."""
    image = _open(stream)
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
        raise ImageProblem(DAMAGED, _one_line(error)) from None


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


def _open(stream: BinaryIO) -> Image.Image:
    """Pillow's image with only the header read, its size checked against our limit instead of Pillow's."""
    try:
        with _open_lock:  # Pillow's limit is a global
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(stream)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:
        if stream.seek(0, io.SEEK_END) == 0:
            raise ImageProblem(EMPTY) from None
        if isinstance(error, UnidentifiedImageError):
            raise ImageProblem(NOT_A_PICTURE) from None
        raise ImageProblem(DAMAGED, _one_line(error)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageProblem(TOO_LARGE, f"{width}x{height}, the limit is {MAX_PIXELS >> 20} Mpx")
    return image


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


class _Names:
    """Finds a stored name by what a document calls the picture."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_base: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_base[PurePosixPath(name).name].append(name)

    def match(self, wanted: str) -> str:
        path = clean_name(wanted)
        folder, _, base = path.rpartition("/")
        same_base = self._by_base.get(base, [])
        for exact in (path, f"images/{path}"):
            if exact in same_base:
                return exact
        return _only(_in_folder(same_base, folder), wanted)

    def match_id(self, image_id: int | str) -> str:
        text = str(image_id)
        folder, _, base = text.rpartition("/")
        for stem in (base, base.zfill(PADDED_DIGITS)):
            if stem in self._by_stem:
                return _only(_in_folder(self._by_stem[stem], folder), text)
        return _only(self._by_number.get(int(text), []) if _is_number(text) else [], text)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for base, names in self._by_base.items():
            found[PurePosixPath(base).stem].extend(names)
        return dict(found)

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = defaultdict(list)
        for stem, names in self._by_stem.items():
            if _is_number(stem):
                found[int(stem)].extend(names)
        return dict(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 40


def clean_name(name: str) -> str:
    """A document's file name with / between folders and nothing that leads out of the set."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _in_folder(names: list[str], folder: str) -> list[str]:
    """Those of some stored names whose folder's path ends so; all of them if none does."""
    return [n for n in names if f"/{PurePosixPath(n).parent}".endswith(f"/{folder}")] or names


def _only(names: list[str], wanted: str) -> str:
    if not names:
        raise ImageProblem(MISSING, wanted)
    if len(names) > 1:
        raise ImageProblem(AMBIGUOUS, f"{wanted}: " + ", ".join(sorted(names)[:3]))
    return names[0]


class _Folder(ImageSource):
    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, file_name: str) -> str:
        name = clean_name(file_name)
        # The usual case needs no list of the whole folder.
        return name if name and (self._root / name).is_file() else super().find(file_name)

    def _list(self) -> Iterator[str]:
        for folder, _, files in os.walk(self._root):
            relative = Path(folder).relative_to(self._root)
            yield from ((relative / name).as_posix() for name in files)

    def _stream(self, name: str) -> BinaryIO:
        try:
            return open(self._root / name, "rb")
        except OSError as error:
            raise ImageProblem(MISSING, f"{name}: {error.strerror}") from None


class _File(_Folder):
    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self._name = path.name

    def find(self, file_name: str) -> str:
        return ImageSource.find(self, file_name)

    def _list(self) -> Iterator[str]:
        yield self._name


class _Tar(ImageSource):
    def __init__(self, path: Path) -> None:
        try:
            with tarfile.open(path, "r:") as archive:
                members = [m for m in archive if m.isreg() and not m.issparse()]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"{path}: not a readable, uncompressed tar file ({_one_line(error)})") from None
        self._path = path
        self._places = {clean_name(m.name): (m.offset_data, m.size) for m in members}

    def _list(self) -> Iterable[str]:
        return self._places

    def _stream(self, name: str) -> BinaryIO:
        offset, size = self._places[name]
        # Opened for each picture: a shared file position would not survive threads or forked workers.
        with open(self._path, "rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))
