"""Pictures that are nowhere yet: a reader given these tells which it would ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

from mal_trt.formats.image_source import ImageSource
from mal_trt.formats.picture_problem import MISSING, ImageProblem


class Nowhere(ImageSource):
    """asked: for each picture that a reader looked for, the paths where it may lie."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def find(self, file_name: str) -> str:
        """Notes the name."""
        return self._asked(file_name)

    def find_id(self, image_id: int | str) -> str:
        """Notes the id."""
        return self._asked(str(image_id))

    def find_stem(self, *paths: str) -> str:
        """Notes the paths."""
        return self._asked(*paths)

    def _asked(self, *paths: str) -> str:
        self.asked.append(list(paths))
        raise ImageProblem(MISSING, paths[0])

    def _list(self) -> Iterable[str]:
        return ()

    def _stream(self, name: str) -> BinaryIO:
        raise FileNotFoundError(name)
