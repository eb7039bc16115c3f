"""The pictures of the page's work, by their numbers: pixels for the network, files for the browser, small copies."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import write_whole
from mal_trt.formats.depth import low_byte_tiles
from mal_trt.formats.images import ImageProblem, ImageSource, read_picture
from mal_trt.formats.overlay import display_size
from mal_trt.formats.pixels import begins_as_picture, open_picture, read_small
from mal_trt.serve.journal import Journal
from mal_trt.serve.recent import Recent, pixels_of
from mal_trt.serve.security import inside

UPLOADS = "uploads"
KEPT_PIXELS = 1 << 26  # decoded pictures that are kept, 192 MB
KEPT_SMALL = 1000
SMALL_SIDE = 160
LONGEST_STEM = 160  # bytes; file systems take 255 for the whole name
HEAD = 32
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "PPM": ".ppm"}
# What every browser shows as we read it; anything else is sent as one of these.
PLAIN = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L")}
_ODD = re.compile(r"[^\w .()+=,@-]+")


class Picture(NamedTuple):
    """A row of the journal. stored: its name in the folder, None if it is not there. upload: it lies in the workspace.
    width, height: None until somebody looked. problem: why it cannot be used."""

    id: int
    upload: int
    name: str
    stored: str | None
    width: int | None
    height: int | None
    problem: str | None
    looked: int


class PictureFiles:
    """Pictures by their rows. InputError says why one cannot be read; any number of threads may ask."""

    def __init__(
        self, journal: Journal, source: ImageSource | None, root: Path | None, folder: Path, most: int
    ) -> None:
        """source: of the pictures that were given, root: their folder if they have one. folder: the workspace. most:
        pixels of one picture."""
        self._journal, self._source, self._root, self._most = journal, source, root, most
        self._uploads = folder / UPLOADS
        self._kept: Recent[int, np.ndarray] = Recent(KEPT_PIXELS, pixels_of)
        self._small: Recent[int, bytes] = Recent(KEPT_SMALL)

    def row(self, id: int) -> Picture:
        """One picture; InputError if there is none of that number."""
        rows = self._journal.execute(
            "SELECT id, upload, name, stored, width, height, problem, looked FROM picture WHERE id=?", (id,)
        )
        if not rows:
            raise InputError(f"picture {id}: there is none")
        return Picture(*rows[0])

    def measured(self, id: int) -> Picture:
        """One picture that can be used, its width and height known."""
        row = self.row(id)
        if row.problem is None and (row.width is None or row.height is None):
            content = self._content(row)
            try:
                width, height = self._opened(row, content).size
            except InputError as error:  # the list says so, and nobody is led to it again
                problem = str(error).removeprefix(f"{row.name}: ")
                self._journal.execute("UPDATE picture SET problem=? WHERE id=?", (problem, id))
                raise
            self._journal.execute("UPDATE picture SET width=?, height=? WHERE id=?", (width, height, id))
            row = row._replace(width=width, height=height)
        if row.problem is not None:
            raise InputError(f"{row.name}: {row.problem}")
        return row

    def pixels(self, row: Picture) -> np.ndarray:
        """uint8 [H,W,3] RGB of a measured picture, not to be changed."""
        if (kept := self._kept.get(row.id)) is not None:
            return kept
        self._opened(row)  # its size, before anything is decoded
        try:
            pixels = read_picture(io.BytesIO(self._content(row)), (row.width or 0, row.height or 0))
            return self._kept.keep(row.id, pixels)
        except ImageProblem as problem:
            raise self._refused(row, str(problem)) from None

    def shown(self, row: Picture) -> tuple[bytes, str]:
        """A file that a browser shows pixel by pixel as we read it, and its media type."""
        content = self._content(row)
        image = self._opened(row, content)
        # A browser would show 16-bit colours by the high byte alone. Looked at first: `getexif` may decode the picture.
        deep = low_byte_tiles(image) is not None
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        plain = (image.format, image.mode) in PLAIN and not image.info.get("transparency")
        if plain and not deep and not turned and image.size == (row.width, row.height):
            return content, f"image/{(image.format or '').lower()}"
        stream = io.BytesIO()
        Image.fromarray(self.pixels(row)).save(stream, "JPEG", quality=95, subsampling=0)
        return stream.getvalue(), "image/jpeg"

    def small(self, row: Picture) -> bytes:
        """A small copy, JPEG."""
        if (kept := self._small.get(row.id)) is not None:
            return kept
        size = (row.width or 1, row.height or 1)
        content = self._content(row)
        self._opened(row, content)
        try:
            image = read_small(io.BytesIO(content), size, display_size(*size, SMALL_SIDE))
        except ImageProblem as problem:
            raise self._refused(row, str(problem)) from None
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        return self._small.keep(row.id, stream.getvalue())

    def add(self, name: str, content: bytes) -> int:
        """Keep an uploaded picture in the workspace, under a name of its own; its number. InputError if it is none."""
        if not begins_as_picture(content[:HEAD]):
            raise InputError(f"{name[:80]!r}: not a picture; JPEG, PNG, WebP, TIFF, BMP and others are taken")
        try:
            image = open_picture(io.BytesIO(content))
        except ImageProblem as problem:
            raise InputError(f"{name[:80]!r}: {problem}") from None
        self._check_size(name, image)
        try:
            read_picture(io.BytesIO(content))
        except ImageProblem as problem:
            raise InputError(f"{name[:80]!r}: {problem}") from None
        self._uploads.mkdir(exist_ok=True)
        stem = _ODD.sub("_", name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or name).strip(" .")
        stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
        ending = ENDINGS.get(image.format or "", f".{(image.format or 'img').lower()}")
        with self._journal.transaction():
            taken = {stored for (stored,) in self._journal.execute("SELECT stored FROM picture")}
            taken |= {called for (called,) in self._journal.execute("SELECT name FROM picture")}
            stored, number = f"{stem or 'picture'}{ending}", 2
            while stored in taken or (self._uploads / stored).exists():
                stored, number = f"{stem or 'picture'} ({number}){ending}", number + 1
            write_whole(self._uploads / stored, content)
            values = (1, stored, stored, *image.size)
            self._journal.insert("picture", "upload, name, stored, width, height", [values])
            return int(self._journal.execute("SELECT last_insert_rowid()")[0][0])

    def _content(self, row: Picture) -> bytes:
        try:
            if row.upload:
                return inside(self._uploads, row.stored or "").read_bytes()
            if self._source is None or row.stored is None:
                raise InputError("its folder was not given to the server; start it with --images")
            if self._root is not None:
                return inside(self._root, row.stored).read_bytes()
            return self._source.read(row.stored)
        except OSError as error:
            raise self._refused(row, f"cannot be read ({error.strerror})") from None
        except (InputError, ImageProblem) as problem:
            raise self._refused(row, str(problem)) from None

    def _opened(self, row: Picture, content: bytes | None = None) -> Image.Image:
        try:
            image = open_picture(io.BytesIO(self._content(row) if content is None else content))
        except ImageProblem as problem:
            raise self._refused(row, str(problem)) from None
        self._check_size(row.name, image)
        return image

    def _check_size(self, name: str, image: Image.Image) -> None:
        width, height = image.size
        if width * height > self._most:
            raise InputError(f"{name[:80]}: {width}x{height} pixels; the limit is {self._most / 1e6:.1f} million")

    def _refused(self, row: Picture, why: str) -> InputError:
        return InputError(f"{row.name}: {why}")
