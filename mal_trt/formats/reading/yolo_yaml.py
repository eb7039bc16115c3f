"""A YOLO data set's description: data.yaml of Ultralytics and Roboflow, obj.data of Darknet and CVAT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.files import file_kind
from mal_trt.formats.picture_names import has_picture_ending
from mal_trt.formats.reading.places import SPLITS, existing
from mal_trt.formats.reading.text import read_text

DATA = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
NULL = ("", "~", "null", "none")
SPLIT_KEYS = {key: split for key, split in SPLITS.items() if key in ("train", "val", "valid", "validation", "test")}


@dataclass(frozen=True)
class Description:
    """What a description says. names: of the classes. splits: for each its pictures' folders and lists that exist.
    absent: what it names and is not there. keypoints: numbers behind each box that are no part of it."""

    file: Path
    names: dict[int, str]
    splits: dict[str, list[Path]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    keypoints: int = 0


def read_description(file: Path) -> Description:
    """The description at a path; InputError names the line that cannot be read."""
    return _darknet(file) if file.suffix == ".data" else _ultralytics(file)


def find_description(folder: Path) -> Path | None:
    """The description of the data set at a folder, or None."""
    for name in DATA:
        if file_kind(folder / name) == "a regular file":
            return folder / name
    others = sorted(p for ending in ("*.yaml", "*.yml") for p in folder.glob(ending))
    for file in others:
        if file_kind(file) == "a regular file" and _describes(file):
            return file
    return next((p for p in sorted(folder.glob("*.data")) if file_kind(p) == "a regular file"), None)


def listed_pictures(file: Path) -> list[str]:
    """The paths in a list of pictures, one a line."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip() and not line.startswith("#")]


def names_in(file: Path) -> dict[int, str]:
    """Class names of a names file (a line each; a blank one names nothing, and counts) or of a description."""
    if file.suffix.lower() in (".yaml", ".yml"):
        return _class_names(_yaml(file))
    return {number: line.strip() for number, line in enumerate(read_text(file).splitlines()) if line.strip()}


def _describes(file: Path) -> bool:
    try:
        content = _yaml(file)
    except InputError:
        return False
    return "names" in content and any(key in content for key in SPLIT_KEYS)


def _ultralytics(file: Path) -> Description:
    content = _yaml(file)
    home = str(content.get("path") or "")
    bases = [file.parent / home] if home else []
    if home and (found := existing(home, [file.parent])) is not None:
        bases.append(found)
    bases.append(file.parent)
    splits: dict[str, list[Path]] = {}
    absent: list[str] = []
    for key, split in SPLIT_KEYS.items():
        for entry in _strings(content.get(key)):
            place = existing(entry, bases)
            if place is None:
                absent.append(f"{key}: {entry}")
            else:
                splits.setdefault(split, []).append(place)
    shape = [int(v) for v in _strings(content.get("kpt_shape")) if v.isdigit()]
    return Description(file, _class_names(content), splits, absent, shape[0] * shape[1] if len(shape) == 2 else 0)


def _darknet(file: Path) -> Description:
    facts: dict[str, str] = {}
    for line in read_text(file).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            facts[key.strip()] = value.strip()
    names = existing(facts["names"], [file.parent]) if facts.get("names") else None
    splits: dict[str, list[Path]] = {}
    absent: list[str] = []
    for key, split in SPLIT_KEYS.items():
        if not facts.get(key):
            continue
        place = existing(facts[key], [file.parent])
        if place is None:
            absent.append(f"{key} = {facts[key]}")
        else:
            splits.setdefault(split, []).append(place)
    return Description(file, names_in(names) if names else {}, splits, absent)


def _yaml(file: Path) -> dict[str, Any]:
    """A YAML file's top level, every scalar a string: a class may be called `no`, or `1.0`."""
    import yaml

    text = read_text(file)
    try:
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{file}:{line}: not YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: no data set's description; expected `names`, `train`, `val`")
    return content


def _class_names(content: dict[str, Any]) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        return {number: str(name) for number, name in enumerate(names) if name != ""}
    if isinstance(names, dict):
        return {
            int(key): str(name)
            for key, name in names.items()
            if str(key).isdigit() and len(str(key)) < 6 and name != ""
        }
    if isinstance(names, str) and names.lower() not in NULL:
        return {number: name.strip() for number, name in enumerate(names.split(",")) if name.strip()}
    return {}


def _strings(value: Any) -> Iterator[str]:
    for entry in value if isinstance(value, list) else [value]:
        if isinstance(entry, str) and entry.strip():
            yield entry.strip()


def is_list(file: Path) -> bool:
    """Whether a text file's first line is the path of a picture."""
    return file.suffix == ".txt" and has_picture_ending(next(iter(listed_pictures(file)), ""))
