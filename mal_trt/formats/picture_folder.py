"""Pictures in a folder, or one by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mal_trt.base.files import IRREGULAR, file_kind, open_regular, walk_files
from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_names import clean_name, has_picture_ending
from mal_trt.formats.picture_problem import MISSING, NOT_A_FILE, UNREADABLE, ImageProblem

MASKS = frozenset(("SegmentationClass", "SegmentationObject"))  # folders of VOC whose pictures are called as the photos


class FolderPictures(ImageSource):
    """The pictures of a folder, with its subfolders."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def find(self, file_name: str) -> str:
        """See `ImageSource.find`."""
        name = clean_name(file_name)
        # The usual case needs no list of the whole folder.
        kind = file_kind(self._root / name) if name and has_picture_ending(name) else ""
        if kind == "a regular file":
            return name
        try:
            return super().find(file_name)
        except ImageProblem as problem:
            kind = kind or (file_kind(self._root / name) if name else "")
            if problem.reason != MISSING or kind in ("no such folder or file", "a folder", ""):
                raise
            if kind == "a regular file":  # of no picture's name or content: what it is, its reader says
                return name
            raise ImageProblem(NOT_A_FILE if kind in IRREGULAR else UNREADABLE, f"{name[:80]}: {kind}") from None

    def find_stem(self, *paths: str) -> str:
        """See `ImageSource.find_stem`; paths into this folder are tried as such first."""
        root = os.path.abspath(self._root) + os.sep
        inside = [path[len(root) :] for path in map(os.path.abspath, paths) if path.startswith(root)]
        return super().find_stem(*(path.replace(os.sep, "/") for path in inside), *paths)

    def _list(self) -> Iterator[str]:
        for name in walk_files(self._root):
            if MASKS.isdisjoint(name.split("/")[:-1]):
                yield name

    def _stream(self, name: str) -> BinaryIO:
        return open_regular(self._root / name)


class OnePicture(FolderPictures):
    """A single picture file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent)
        self._name = path.name

    def find(self, file_name: str) -> str:
        """See `ImageSource.find`."""
        return ImageSource.find(self, file_name)

    def _list(self) -> Iterator[str]:
        yield self._name
