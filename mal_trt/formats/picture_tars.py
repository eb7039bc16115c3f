"""Pictures in uncompressed tar files, one or many: the shards of a WebDataset are such files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

from mal_trt.base.errors import InputError, one_line
from mal_trt.base.places import Copies
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import clean_name

BLOCK = 512  # bytes


class TarPictures(ImageSource):
    """The pictures of tar files. Those of one are called as they are there; those of several have the name of their
    file, without its ending, before them."""

    def __init__(self, places: Sequence[str]) -> None:
        super().__init__()
        self._copies = Copies()
        self._places: dict[str, tuple[str, int, int]] = {}
        for place in places:
            for name, (offset, size) in tar_index(place, self._copies).items():
                self._places[shard_name(place, name, len(places) > 1)] = (place, offset, size)

    def _list(self) -> Iterable[str]:
        return self._places

    def _stream(self, name: str) -> BinaryIO:
        place, offset, size = self._places[name]
        # Opened for each picture: a shared file position would not survive threads or forked workers.
        with self._copies.open(place) as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))


def tar_index(place: str, copies: Copies) -> dict[str, tuple[int, int]]:
    """Where the members of a tar file lie, by their names: first byte and length. InputError if it is not a whole,
    uncompressed tar file."""
    try:
        with copies.open(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            members = list(archive)
            last = max((m.offset_data + -(-m.size // BLOCK) * BLOCK for m in members), default=0)
            file.seek(last)
            # tarfile takes a header that is cut off for the end; every tar file ends in blocks of zeros.
            if len(file.read(BLOCK)) < BLOCK:
                raise InputError(f"{place}: not a whole tar file, it ends after {len(members)} members; copy it again")
    except FileNotFoundError:
        raise InputError(f"{place}: no such file") from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{place}: not a readable, uncompressed tar file ({one_line(error)})") from None
    return {clean_name(m.name): (m.offset_data, m.size) for m in members if m.isreg() and not m.issparse()}


def shard_name(place: str, name: str, several: bool) -> str:
    """What a member of a tar file is called among those of all."""
    return f"{PurePosixPath(place).stem}/{name}" if several else name
