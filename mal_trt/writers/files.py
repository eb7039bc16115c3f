"""Files of an output that is being written: text, and the files of a folder that are named by their pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO

from mal_trt.base.errors import RunError
from mal_trt.formats.images import clean_name

UNNAMED = "unnamed"


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A new text file, on the disk when it is closed."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


class PictureFiles:
    """The files of a folder that are called as their pictures are, with another ending.

    taken: files that lie there, and what they are. again: a picture may come more than once, as what is appended to.
    """

    def __init__(self, folder: Path, taken: dict[str, str] | None = None, again: bool = False) -> None:
        self._folder = folder
        self._owners = dict(taken or {})
        self._again = again
        self._unnamed = 0

    def path(self, picture: str, ending: str) -> Path:
        """Where a picture's file lies, its folder made. RunError if another one's lies there, or what is `taken`."""
        clean = clean_name(picture).replace("\0", "_")
        if not clean:  # it was "..", say
            self._unnamed += 1
            picture = clean = f"{UNNAMED}-{self._unnamed}"
        name = str(PurePosixPath(clean).with_suffix(ending))
        known = name in self._owners
        owner = self._owners.setdefault(name, picture)
        if owner != picture:
            raise RunError(
                f"{picture} and {owner} would share the label file {name}; "
                "choose a format that is one file, such as --format coco"
            )
        if known and not self._again:
            raise RunError(
                f"{picture} is listed with two sizes, which one label file cannot hold; "
                "choose a format that is one file, such as --format coco"
            )
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def words(name: str) -> str:
    """A class's name on one line."""
    return " ".join(name.split())


def xml_text(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("", text)


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
