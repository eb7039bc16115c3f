"""Finds a picture by what a document calls it, where case, ending, folder, Unicode form or URL quoting may differ."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from mal_trt.formats.picture_problem import AMBIGUOUS, MISSING, ImageProblem

PADDED_DIGITS = 12  # COCO pads picture ids to 12 digits in file names
PICTURES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpc", ".jpx", ".tga", ".ico", ".pcx"),
    ]
)
# Never a picture, so not worth a look inside.
OTHERS = frozenset(
    [
        *(".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".names", ".data", ".labels", ".md"),
        *(".rst", ".html", ".htm", ".py", ".ipynb", ".sh", ".log", ".cfg", ".ini", ".toml", ".cache", ".npy", ".npz"),
        *(".parquet", ".arrow", ".db", ".pkl", ".pt", ".pth", ".onnx", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"),
        *(".mp4", ".avi", ".mov", ".mkv", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".heic", ".svg", ".part"),
        ".journal",
    ]
)

_K = TypeVar("_K")

EXACT, RELATED = 1 << 20, 1 << 19  # relations of two folders; below them stands how many parts they share


class Match(NamedTuple):
    """A stored picture. renamed: its document calls it otherwise."""

    name: str
    renamed: bool


class PictureNames:
    """Stored names (with / between folders), looked up by a document's. is_picture: looks inside a stored file."""

    def __init__(self, names: Iterable[str], is_picture: Callable[[str], bool]) -> None:
        self._is_picture = lru_cache(maxsize=None)(is_picture)
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._given = list(names)
        for name in self._given:
            base = PurePosixPath(name).name
            if _ending(base) not in OTHERS and not base.startswith("._"):
                self._by_base[base].append(name)

    def match(self, wanted: str) -> Match:
        """The picture of that path, else the only one that may be meant; ImageProblem if there is none, or several."""
        path = clean_name(wanted)
        base = PurePosixPath(path).name
        stems = dict.fromkeys((_key(_stem(base)), _key(PurePosixPath(base).stem), _key(base)))
        same_stem = [name for stem in stems for name in self._by_stem_key.get(stem, [])] if base else []
        levels = (self._by_base.get(base, []), self._by_key.get(_key(base), []), same_stem)
        found = [self._pictures(level) for level in levels]
        folder = path.rpartition("/")[0]
        for names, same in zip(found, (True, False, False), strict=True):
            near = _nearest(names, folder)
            if near:
                return Match(self._only(near, wanted), not same)
        for names, same in zip(found, (True, False, False), strict=True):
            if names:
                name = self._only(names, wanted)
                return Match(name, not same or _relation(name, folder) < 0)
        raise ImageProblem(MISSING, wanted)

    def match_stem(self, *wanted: str) -> Match:
        """The picture of a label file: `wanted` are paths without an ending where it may lie, the likeliest first."""
        for called, renamed in ((self._stem_names, False), (self._stem_key_names, True)):
            for path in wanted:
                near = _nearest(self._pictures(called(path)), path.rpartition("/")[0])
                if near:
                    return Match(self._only(near, path), renamed)
            for path in wanted:
                names = self._pictures(called(path))
                if names:
                    return Match(self._only(names, path), renamed)
        raise ImageProblem(MISSING, wanted[0])

    def match_id(self, image_id: int | str) -> Match:
        """The picture whose stem is an id: as written, zero-padded, or equal as a number."""
        text = str(image_id)
        folder, _, base = text.rpartition("/")
        for stem in (base, base.zfill(PADDED_DIGITS)):
            if names := self._pictures(self._by_stem.get(stem, [])):
                return Match(self._only(_nearest(names, folder) or names, text), False)
        if names := self._pictures(self._by_number.get(int(text), []) if _is_number(text) else []):
            return Match(self._only(names, text), False)
        return self.match(text)

    def all(self) -> list[str]:
        """Every stored picture's name, in the order given."""
        found = {name for names in self._by_base.values() for name in self._pictures(names)}
        return [name for name in self._given if name in found]

    def examples(self, count: int) -> list[str]:
        """Some stored pictures' names."""
        return list(islice((name for names in self._by_base.values() for name in self._pictures(names)), count))

    def count(self) -> int:
        """How many pictures there are, by their names."""
        return sum(_ending(base) in PICTURES for base, names in self._by_base.items() for _ in names)

    def _pictures(self, names: Sequence[str]) -> list[str]:
        """Those that are pictures by their ending, or where it says nothing, by their content."""
        return [n for n in dict.fromkeys(names) if _ending(n) in PICTURES or self._is_picture(n)]

    def _only(self, names: Sequence[str], wanted: str) -> str:
        if len(names) > 1:  # a name may lie; the content does not
            names = [name for name in names if self._is_picture(name)] or names
        if len(names) > 1:
            raise ImageProblem(AMBIGUOUS, f"{wanted}: " + ", ".join(sorted(names)[:3]))
        return names[0]

    def _stem_names(self, path: str) -> list[str]:
        base = path.rpartition("/")[2]
        return [*self._by_stem.get(base, ()), *self._by_base.get(base, ())]

    def _stem_key_names(self, path: str) -> list[str]:
        base = _key(path.rpartition("/")[2])
        return [*self._by_stem_key.get(base, ()), *self._by_key.get(base, ())]

    def _stems(self) -> Iterator[tuple[str, list[str]]]:
        for base, names in self._by_base.items():
            for stem in dict.fromkeys((_stem(base), PurePosixPath(base).stem)):
                yield stem, names

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        return _gathered((_key(base), names) for base, names in self._by_base.items())

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _gathered(self._stems())

    @cached_property
    def _by_stem_key(self) -> dict[str, list[str]]:
        return _gathered((_key(stem), names) for stem, names in self._stems())

    @cached_property
    def _by_number(self) -> dict[int, list[str]]:
        return _gathered((int(stem), names) for stem, names in self._by_stem.items() if _is_number(stem))


def bare_name(name: str) -> str:
    """What a document calls a picture, without folders, a picture's ending, case, Unicode form, URL quoting and the
    zeros that pad a number: equal where two names may mean one picture."""
    key = _key(_stem(PurePosixPath(clean_name(name)).name))
    return key.lstrip("0") or key if key.isdigit() else key


def clean_name(name: str) -> str:
    """A document's file name with / between folders and nothing that leads out of the set."""
    if "://" in name[:10]:
        name = unquote(urlsplit(name).path)
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def has_picture_ending(name: str) -> bool:
    """Whether a file is a picture going by its name."""
    return _ending(name) in PICTURES


def _gathered(pairs: Iterable[tuple[_K, list[str]]]) -> dict[_K, list[str]]:
    found: dict[_K, list[str]] = defaultdict(list)
    for key, names in pairs:
        found[key].extend(names)
    return dict(found)


def _key(text: str) -> str:
    """Equal for names that differ in case, Unicode form, URL quoting or outer spaces alone."""
    plain = unicodedata.normalize("NFC", unquote(text)).casefold()
    return unicodedata.normalize("NFC", plain).strip()


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(base: str) -> str:
    """A name without a picture's ending; without any other it stays: `v1.2` is no file of type `.2`."""
    return PurePosixPath(base).stem if _ending(base) in PICTURES | OTHERS else base


def _relation(name: str, folder: str) -> int:
    """How far a stored picture's folder agrees with a wanted one; below 0: they are at odds."""
    have, want = _key(name.rpartition("/")[0]), _key(folder)
    if have in (want, f"images/{want}" if want else "images"):
        return EXACT + (have == want)
    if f"/{have}".endswith(f"/{want}") or not want:
        return RELATED
    if not have:
        return 0
    return have.count("/") + 1 if f"/{want}".endswith(f"/{have}") else -1


def _nearest(names: Sequence[str], folder: str) -> list[str]:
    """Those of the names that agree most with a folder; none if there is no agreement."""
    ranked = [(_relation(name, folder), name) for name in names]
    best = max((rank for rank, _ in ranked), default=0)
    return [name for rank, name in ranked if rank == best] if best > 0 else []


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 40
