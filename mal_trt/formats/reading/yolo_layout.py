"""Which files of a YOLO data set are labels, where each one's picture may lie, and what the classes are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.files import file_kind, walk_files
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.formats.reading.places import PICTURES_OF, existing, label_path, picture_paths, split_name, split_of
from mal_trt.formats.reading.yolo_yaml import (
    DATA,
    Description,
    find_description,
    is_list,
    listed_pictures,
    names_in,
    read_description,
)

# Files of class names that lie among the labels.
NAMES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "names.txt", "predefined_classes.txt")
REGULAR = "a regular file"


@dataclass(frozen=True)
class Label:
    """A label file, the paths (without ending) where its picture may lie, and the split it belongs to."""

    file: Path
    pictures: tuple[str, ...]
    split: str | None = None


@dataclass(frozen=True)
class YoloSet:
    """The labels of a data set. root: its folder. names: of the classes. keypoints: see `Description`. extra: files
    besides the labels that say what is read."""

    root: Path
    labels: list[Label]
    names: dict[int, str]
    keypoints: int = 0
    notes: list[str] = field(default_factory=list)


def yolo_set(path: Path, split: str | None = None) -> YoloSet:
    """The YOLO data set at a path: a folder of labels (beside their pictures or not), a data set's root, its data.yaml
    or obj.data, a list of pictures, or one label file. split: its labels alone. InputError if there are none."""
    if file_kind(path) == "a folder":
        root, description = path, find_description(path)
    elif path.suffix.lower() in (".yaml", ".yml", ".data"):
        root, description = path.parent, path
    elif is_list(path):
        labels = list(_of_list(path, [path.parent], split_of(path.name)))
        return _chosen(YoloSet(path.parent, labels, _names(path.parent)), path, split)
    else:
        return YoloSet(path.parent, [_label(path, path.parent)], _names(path.parent))
    described = read_description(description) if description else None
    labels = _described(described) if described else []
    notes = []
    if not labels:
        labels = [_label(file, root) for file in label_files(root)]
        if described and described.absent:
            notes.append(
                f"{described.file.name} names what is not there ({described.absent[0]}): all of {root} was read"
            )
        if described and split is not None:
            labels = _by_lists(labels, described, split)
    names = (described.names if described else {}) or _names(root)
    keypoints = described.keypoints if described else 0
    return _chosen(YoloSet(root, labels, names, keypoints, notes), path, split)


def label_files(folder: Path) -> Iterator[Path]:
    """The .txt files of a folder and its subfolders that may be labels, by name."""
    for name in walk_files(folder):
        file = folder / name
        if file.suffix.lower() == ".txt" and file.name not in NAMES:
            yield file


def name_files(folder: Path) -> list[Path]:
    """Files that name the classes of a folder of labels: in it, beside it, or above where its own name, or its
    parent's, is that of a part of a data set."""
    whole = folder.absolute()
    inner = all(place.name in PICTURES_OF or split_of(place.name) for place in (whole, whole.parent))
    found = []
    for place in (folder, *list(whole.parents)[: 2 if inner else 1]):
        for name in (*NAMES, *DATA):
            if file_kind(place / name) == REGULAR:
                found.append(place / name)
        found += [p for p in sorted(place.glob("*.names")) if p.name not in NAMES and file_kind(p) == REGULAR]
    return found


def _names(folder: Path) -> dict[int, str]:
    for file in name_files(folder):
        if names := names_in(file):
            return names
    return {}


def _label(file: Path, root: Path, split: str | None = None) -> Label:
    within = Path(root.absolute().name) / file.relative_to(root)
    return Label(file, tuple(picture_paths(file)), split or split_of(within.parent))


def _described(description: Description) -> list[Label]:
    found: dict[Path, Label] = {}
    for split, places in description.splits.items():
        for place in places:
            for label in _of_place(place, split, description.file.parent):
                found.setdefault(label.file, label)
    return list(found.values())


def _of_place(place: Path, split: str, root: Path) -> Iterator[Label]:
    """Labels of a split's folder of pictures, or list of them."""
    if file_kind(place) == REGULAR:
        if not has_picture_ending(place.name):
            yield from _of_list(place, [place.parent, root], split)
        return
    folders = [Path(text) for text in label_path(f"{place.absolute().as_posix()}/x")]
    for folder in dict.fromkeys(path.parent for path in folders):
        if file_kind(folder) != "a folder":
            continue
        for file in label_files(folder):
            picture = place / file.relative_to(folder).with_suffix("")
            paths = (str(picture.absolute()), *picture_paths(file))
            yield Label(file, tuple(dict.fromkeys(paths)), split)


def _of_list(file: Path, bases: list[Path], split: str | None) -> Iterator[Label]:
    for line in listed_pictures(file):
        for text in label_path(line.replace("\\", "/")):
            if (label := existing(text, bases)) is not None and file_kind(label) == REGULAR:
                yield _label(label, label.parent, split or "train")
                break


def _by_lists(labels: list[Label], description: Description, split: str) -> list[Label]:
    """The labels with the splits that a Darknet set's lists of pictures give them."""
    splits: dict[str, str] = {}
    for name, places in description.splits.items():
        for place in places:
            if file_kind(place) == REGULAR:
                splits.update((Path(line).stem, name) for line in listed_pictures(place))
    return [Label(one.file, one.pictures, splits.get(one.file.stem, one.split)) for one in labels]


def _chosen(found: YoloSet, path: Path, split: str | None) -> YoloSet:
    if split is None:
        return found
    return YoloSet(found.root, of_split(found.labels, path, split), found.names, found.keypoints, found.notes)


def of_split(labels: Iterable[Label], path: Path, split: str) -> list[Label]:
    """The labels of one split; InputError names the splits that there are."""
    every = list(labels)
    chosen = [one for one in every if one.split == split_name(split)]
    if every and not chosen:
        there = sorted({one.split for one in every if one.split}) or ["none"]
        raise InputError(f"{path}: no split {split}; its splits: {', '.join(there)}")
    return chosen
