"""Files of an output that is being written: text, and the files of a folder that are named by their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO

from mal_trt.base.errors import RunError
from mal_trt.formats.images import clean_name


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A new text file, on the disk when it is closed."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


class PictureFiles:
    """The files of a folder that are called as their pictures are, with another ending."""

    def __init__(self, folder: Path, taken: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._owners = dict(taken or {})

    def path(self, picture: str, ending: str) -> Path:
        """Where a picture's file lies, its folder made. RunError if another one's lies there, or what is `taken`."""
        name = str(PurePosixPath(clean_name(picture)).with_suffix(ending))
        if self._owners.setdefault(name, picture) != picture:
            raise RunError(
                f"{picture} and {self._owners[name]} would share the label file {name}; "
                "choose a format that is one file, such as --format coco"
            )
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def words(name: str) -> str:
    """A class's name on one line."""
    return " ".join(name.split())
