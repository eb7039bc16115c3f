"""Where things of a data set lie: a label file's picture, the split of a file, a path of another machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from mal_trt.base.files import file_kind

# Folders of labels, and what the folder of their pictures is called beside them.
PICTURES_OF = {
    "labels": ("images",),
    "label": ("image", "images"),
    "label_2": ("image_2",),
    "annotations": ("images", "JPEGImages"),
    "Annotations": ("JPEGImages", "images", "Images"),
    "Labels": ("Images",),
    "labels_2": ("images_2",),
    "ann": ("img",),  # Supervisely
    "gt": ("images",),
}
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def picture_paths(label: str | Path) -> list[str]:
    """Where the picture of a label file may lie, without its ending, the likeliest place first."""
    path = Path(os.path.abspath(label))
    parts, stem = path.parts[:-1], path.stem
    for place in range(len(parts) - 1, 0, -1):
        if parts[place] in PICTURES_OF:
            swapped = [Path(*parts[:place], other, *parts[place + 1 :], stem) for other in PICTURES_OF[parts[place]]]
            return [str(path) for path in (*swapped, Path(*parts, stem))]
    return [str(Path(*parts, stem))]


def label_path(picture: str) -> list[str]:
    """Where the label file of a picture may lie: the last `images` of its path made `labels`, or beside it."""
    stem = str(PurePosixPath(picture).with_suffix(".txt"))
    head, found, tail = f"/{stem}".rpartition("/images/")
    return [f"{head}/labels/{tail}"[1:], stem] if found else [stem]


def split_of(path: str | Path) -> str | None:
    """The split that a path tells by a folder of that name, or by a name such as `instances_val2017`."""
    parts = PurePosixPath(str(path).replace(os.sep, "/")).parts
    for part in reversed(parts):
        words = "".join(c if c.isalpha() else " " for c in part.lower()).split()
        for word in words if part == parts[-1] or len(words) < 3 else ():
            if word in SPLITS:
                return SPLITS[word]
    return None


def split_name(split: str) -> str:
    """What a split is called here: valid and validation are val."""
    return SPLITS.get(split.lower(), split)


def existing(path: str, bases: Sequence[Path]) -> Path | None:
    """The file or folder that a data set's description means: the path itself, below one of the folders, or the longest
    end of it there, since descriptions travel between machines."""
    plain = path.replace("\\", "/")
    for base in bases:
        if file_kind(base / plain) in ("a folder", "a regular file"):
            return Path(os.path.normpath(base / plain))
    parts = [part for part in plain.split("/") if part not in ("", ".", "..")]
    if parts and parts[0].endswith(":"):
        parts = parts[1:]
    for start in range(len(parts)):
        for base in bases:
            tried = base.joinpath(*parts[start:])
            if file_kind(tried) in ("a folder", "a regular file"):
                return tried
    return None


def common_home(places: Iterable[Sequence[str]], base: Path) -> Path | None:
    """The folder that holds all pictures. places: for each picture the paths where it may lie, from `base`, with an
    ending or without. None if none is there."""
    folders: set[str] = set()
    listed: dict[str, set[str]] = {}
    for paths in places:
        for path in paths:
            folder, name = os.path.split(os.path.normpath(base / path.replace("\\", "/")))
            if folder not in listed:
                listed[folder] = set(_listed(folder))
            if name.lower() in listed[folder]:
                folders.add(folder)
                break
    if not folders:
        return None
    try:
        home = Path(os.path.commonpath(folders))
    except ValueError:  # several drives
        return None
    return home if len(home.parts) > 2 or folders == {str(home)} else None


def _listed(folder: str) -> Iterator[str]:
    try:
        for name in os.listdir(folder):
            if not name.lower().endswith((".txt", ".json", ".xml", ".csv")):
                yield name.lower()
                yield name.lower().rpartition(".")[0]
    except OSError:
        return
