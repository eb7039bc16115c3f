"""Opens pictures, wherever they are kept. How they are looked up and decoded is `image_source`."""

from __future__ import annotations

from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.files import REGULAR, file_kind
from mal_trt.base.places import ending_of, places, split_url
from mal_trt.base.remote import is_url
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_folder import FolderPictures, OnePicture
from mal_trt.formats.picture_names import clean_name, has_picture_ending
from mal_trt.formats.picture_problem import DAMAGED, OTHER_SIZE, ImageProblem
from mal_trt.formats.picture_stores import EACH, StorePictures, UrlPictures
from mal_trt.formats.picture_tables import ParquetPictures
from mal_trt.formats.picture_tars import TarPictures
from mal_trt.formats.pixels import read_picture, to_rgb

__all__ = [
    "DAMAGED",
    "EACH",
    "OTHER_SIZE",
    "ImageProblem",
    "ImageSource",
    "clean_name",
    "open_images",
    "place_key",
    "read_picture",
    "to_rgb",
]

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")


def open_images(path: str | Path, listed: bool = True) -> ImageSource:
    """The pictures of a folder (with its subfolders), of uncompressed .tar or .parquet files, or a single picture file;
    on a disk or at a URL. Several .tar or .parquet files are named by a pattern such as `shard-{000..123}.tar`.

    listed: False takes a document's names as they are where looking them up would mean to list a whole bucket.
    """
    if str(path) == EACH:
        return UrlPictures()
    found = places(path)
    for place in found:
        if place.lower().endswith(COMPRESSED):
            raise InputError(f"{place}: pictures cannot be read out of a compressed archive; unpack it first")
    ending = ending_of(found)
    if ending in (".tar", ".parquet") and (len(found) > 1 or is_url(found[0]) or file_kind(found[0]) == REGULAR):
        return TarPictures(found) if ending == ".tar" else ParquetPictures(found)
    if len(found) > 1:
        raise InputError(f"{path}: names {len(found):,} files; several may be .tar or .parquet files, all of one kind")
    return _at_url(found[0], listed) if is_url(found[0]) else _on_disk(Path(found[0]))


def place_key(place: str | Path) -> str:
    """What a place is remembered by: a URL or a pattern as it is, a path from the root."""
    return str(place) if is_url(place) or str(place) == EACH else str(Path(place).resolve())


def _at_url(url: str, listed: bool) -> ImageSource:
    if not has_picture_ending(url):
        return StorePictures(url, listed=listed)
    folder, name = split_url(url)
    try:
        return StorePictures(folder, only=name)
    except ImageProblem as problem:
        raise InputError(f"{url}: {problem.reason}") from None


def _on_disk(path: Path) -> ImageSource:
    kind = file_kind(path)
    if kind == "a folder":
        return FolderPictures(path)
    if kind != REGULAR:
        raise InputError(f"{path}: {kind}; --images takes a folder, a .tar, a .parquet, one picture, or a URL of these")
    return OnePicture(path)
