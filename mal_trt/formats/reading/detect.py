"""Which format a box file or folder has, told by what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mal_trt.base.errors import InputError
from mal_trt.base.files import REGULAR, file_kind, walk_files
from mal_trt.base.places import ending_of, places
from mal_trt.formats.reading.json_kinds import BROKEN, json_format
from mal_trt.formats.reading.kitti import is_kitti_line
from mal_trt.formats.reading.png_instance import is_instances_csv
from mal_trt.formats.reading.table import is_csv
from mal_trt.formats.reading.text import head, read_bytes
from mal_trt.formats.reading.unread import PACKED, check_known
from mal_trt.formats.reading.via import is_via_csv
from mal_trt.formats.reading.webdataset import holds_boxes
from mal_trt.formats.reading.xml_elements import elements, root_tag
from mal_trt.formats.reading.yolo import is_label_line, is_named_line
from mal_trt.formats.reading.yolo_layout import NAMES
from mal_trt.formats.reading.yolo_yaml import find_description, is_list

# In the order in which they win where a folder holds as many files of one as of another.
TITLES = {
    "voc": "Pascal VOC files",
    "cvat": "CVAT XML",
    "coco": "a COCO document",
    "labelme": "LabelMe files",
    "label-studio": "a Label Studio export",
    "via": "a VIA project",
    "kitti": "KITTI labels",
    "yolo": "a YOLO data set",
    "csv": "a table (CSV)",
    "parquet": "a table (Parquet)",
    "png-instance": "masks in PNG pictures",
    "webdataset": "a WebDataset",
}
ENDINGS = {
    "voc": (".xml",),
    "cvat": (".xml",),
    "coco": (".json",),
    "labelme": (".json",),
    "label-studio": (".json",),
    "via": (".json", ".csv"),
    "kitti": (".txt",),
    "yolo": (".txt",),
    "csv": (".csv", ".tsv", ".txt"),
    "parquet": (".parquet",),
    "png-instance": (".csv",),
    "webdataset": (".tar",),
}
ROOTS = {"annotation": "voc", "annotations": "cvat"}  # of XML
# Formats whose readers tell themselves of files that are none of theirs, or broken.
TELLING = ("kitti", "labelme", "parquet", "voc", "webdataset")
LOOKED_AT = 50  # files of one ending looked into before the rest is taken for the same


@dataclass(frozen=True)
class DetectedFormat:
    """A box file or folder, recognised. files: those of the format; none for yolo, whose layout
    says which, and for webdataset, whose tar files may be at URLs. stray: files in the folder with the same endings
    that no reader takes."""

    path: Path
    format: str
    files: tuple[Path, ...]
    stray: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder at the path, or the one that holds the file."""
        return self.path if file_kind(self.path) == "a folder" else self.path.parent


def detect(path: str | Path, format: str | None = None) -> DetectedFormat:
    """The format of what lies at a path. format: taken for it, without a look. InputError if no reader takes it."""
    if format is not None and format not in TITLES:
        raise InputError(f"boxes format {format}: expected one of {', '.join(TITLES)}")
    if ending_of(found := places(path)) == ".tar":
        return DetectedFormat(Path(path), "webdataset", ())
    path = Path(path)
    if len(found) > 1:
        return _several(path, tuple(map(Path, found)), format)
    kind = file_kind(path)
    if kind == "a folder":
        return _folder(path, format)
    if kind != "a regular file":
        raise InputError(f"{path}: cannot be read ({kind}); expected boxes: {', '.join(TITLES.values())}")
    if format is None and (format := _file(path, alone=True, broken="coco")) is None:
        check_known(path)
    return DetectedFormat(path, format or "coco", (path,))


def _several(path: Path, files: tuple[Path, ...], format: str | None) -> DetectedFormat:
    """The files that a pattern names, all of one format."""
    for file in files:
        if (kind := file_kind(file)) != REGULAR:
            raise InputError(f"{file}: cannot be read ({kind}); the pattern {path} names it")
    kinds = {format or _file(file, broken="coco") for file in files}
    if len(kinds) > 1 or None in kinds:
        listed = ", ".join(sorted(str(kind) for kind in kinds))
        raise InputError(f"{path}: names {len(files):,} files that are not all of one format ({listed})")
    return DetectedFormat(path, format or str(kinds.pop()), files)


def _folder(path: Path, format: str | None) -> DetectedFormat:
    if format is None and find_description(path) is not None:
        return DetectedFormat(path, "yolo", ())
    files = [path / name for name in walk_files(path)]
    forced = format is not None
    kinds = {} if forced else dict(_looked_at(files))
    if format is None:
        # Where all are broken, COCO's reader says what is wrong.
        counts = Counter([kind for kind in kinds.values() if kind != BROKEN] or ["coco"] * len(kinds))
        if not counts:
            for file in files:
                check_known(file)
            raise InputError(f"{path}: holds no boxes: neither .txt, .xml nor .json files of a format that is read")
        format = max(TITLES, key=lambda name: counts[name])
    if format == "yolo":
        return DetectedFormat(path, "yolo", ())
    alike = [f for f in files if f.suffix.lower() in ENDINGS[format]]
    if forced or format in TELLING:
        chosen, stray = [f for f in alike if kinds.get(f, format) in (format, BROKEN)], []
    else:
        # What is broken may well be of this format; its reader says what is wrong.
        chosen = [f for f in alike if kinds.get(f) in (format, BROKEN)]
        stray = [f for f in alike if f not in kinds]
    if not chosen:
        raise InputError(f"{path}: holds no {' or '.join(ENDINGS[format])} files to read as {TITLES[format]}")
    return DetectedFormat(path, format, tuple(chosen), tuple(stray))


def _looked_at(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """The files of a folder that are of some format, with it."""
    looked: dict[tuple[Path, str], Counter[str]] = {}
    for file in files:
        ending = file.suffix.lower()
        if not any(ending in endings for endings in ENDINGS.values()) or file.name in NAMES:
            continue
        seen = looked.setdefault((file.parent, ending), Counter())
        if seen.total() >= LOOKED_AT and len(seen) == 1 and ending != ".json":
            yield file, next(iter(seen))
        elif (kind := _file(file)) is not None:
            seen[kind] += 1
            yield file, kind


def _file(path: Path, alone: bool = False, broken: str = BROKEN) -> str | None:
    """The format of one file, or None; `broken` of what should be JSON. alone: given by itself, so that its ending is
    meant."""
    ending = path.suffix.lower()
    if ending in (".yaml", ".yml", ".data"):
        return "yolo"
    start = head(path)
    first = start.lstrip()[:1]
    if start.startswith("PAR1"):
        return "parquet"
    if ending == ".tar":
        return "webdataset" if alone or holds_boxes(path) else None
    if read_bytes(path, 4).startswith((b"PK\3\4", b"\x1f\x8b\x08")):
        raise InputError(f"{path}: {PACKED}")
    if first == "<":
        tag = root_tag(path)
        if alone and tag not in ROOTS:
            next(elements(path, None), None)  # raises what is wrong, if it is no XML
            raise InputError(f"{path}: XML with the root <{tag}>; expected <annotation> (VOC) or <annotations> (CVAT)")
        return ROOTS.get(tag)
    if first in ("{", "["):
        kind = json_format(path)
        if kind != BROKEN:
            return kind
        return broken if ending == ".json" or broken != BROKEN else None
    lines = [line for line in start.splitlines() if line.strip()]
    if any(map(is_kitti_line, lines)):
        return "kitti"
    if ending in (".csv", ".tsv") or is_csv(start):
        lines = lines or [""]
        if is_via_csv(lines[0].split(",")):
            return "via"
        if is_instances_csv(lines[0].split(",")):
            return "png-instance"
        if alone and not is_csv(start):
            check_known(path)
        return "csv" if is_csv(start) or alone else None
    if any(is_label_line(line) or is_named_line(line) for line in lines) or (ending == ".txt" and is_list(path)):
        return "yolo"
    return None
