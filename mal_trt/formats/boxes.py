"""Boxes of other formats as a COCO document in memory: folders of YOLO .txt files and of Pascal VOC .xml files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.formats.jsonstream import STREAMED, Entry, document_entries, read_document
from mal_trt.formats.segmentations import painted_rle

Document = dict[str, Any]
NAMES = ("classes.txt", "obj.names", "data.yaml", "data.yml")
MOST_CLASSES = 100_000
EXPECTED = "expected COCO JSON, a folder of YOLO .txt files or a folder of VOC .xml files"


def read_boxes(path: Path, images: ImageSource) -> Document:
    """A COCO document ({"images", "annotations", "categories"}) of any box file this package reads.

    path: a COCO .json; a folder of YOLO labels (`class cx cy w h`, or `class x y x y ...` polygons, shares of
    the picture, a score behind them or none; class names in its classes.txt or data.yaml, or in those beside it); or a
    folder of VOC .xml. In folders pictures get ids 1, 2, ... in the order of the files' names, boxes likewise. Boxes
    are XYWH, picture pixels, top left origin, half-open.

    Raises InputError naming the file and, where there are lines, the line.
    """
    if not path.is_dir():
        return read_coco(path)
    files = _label_files(path)
    return (_read_voc if files[0].suffix == ".xml" else _read_yolo)(path, files, images)


def read_entries(path: Path, images: ImageSource) -> Iterator[Entry]:
    """The document of `read_boxes`, or a bare list of results, piece by piece; a COCO file is never held whole."""
    return document_entries(read_boxes(path, images)) if path.is_dir() else read_document(path)


def boxes_sha256(path: Path) -> str:
    """SHA-256, hexadecimal, of all that `read_boxes` reads at a path: of the file, or of a folder's label files, with
    their names, and its class names."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in _label_files(path):
        digest.update(f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n".encode())
    digest.update(json.dumps(_yolo_names(path)).encode())
    return digest.hexdigest()


def _label_files(folder: Path) -> list[Path]:
    """The VOC files of a folder and its subfolders, else the YOLO files, by name."""
    for ending in (".xml", ".txt"):
        files = sorted(f for f in folder.rglob(f"*{ending}") if f.name not in NAMES)
        if files:
            return files
    raise InputError(f"{folder}: holds neither .txt nor .xml files; {EXPECTED}")


def read_coco(path: Path) -> Document:
    """A COCO document as it stands in its file; InputError if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {EXPECTED}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    for key in STREAMED:
        records = content.get(key) if isinstance(content, dict) else None
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{path}: not a COCO document; it needs the lists `images` and `annotations`, of objects")
    return dict(content)


def _read_yolo(folder: Path, files: list[Path], images: ImageSource) -> Document:
    pictures: list[Document] = []
    annotations: list[Document] = []
    classes: set[int] = set()
    for number, file in enumerate(files, 1):
        stem = file.relative_to(folder).with_suffix("").as_posix()
        try:
            name = images.find_id(stem)
            width, height = images.size(name)
        except ImageProblem:
            name, width, height = stem, 0, 0
        pictures.append({"id": number, "file_name": name, "width": width, "height": height})
        # Without its picture a box has no pixels; it keeps its shares, and the picture is what it is skipped for.
        for line in _yolo_lines(file, width or 1, height or 1):
            classes.add(line.category)
            annotation = _annotation(len(annotations) + 1, number, line.category, line.bbox)
            annotations.append({**annotation, **line.more})
    names = _yolo_names(folder)
    categories = [{"id": c, "name": names.get(c, str(c))} for c in range(max(classes | set(names), default=-1) + 1)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


class _Line(NamedTuple):
    """A line of a YOLO file. bbox: XYWH pixels. more: the annotation's further fields, a polygon and a score."""

    category: int
    bbox: list[float]
    more: Document


def _yolo_lines(file: Path, width: int, height: int) -> Iterator[_Line]:
    for number, text in enumerate(_text(file).splitlines(), 1):
        words = text.split()
        if not words:
            continue
        try:
            category, values = int(words[0]), [float(w) for w in words[1:]]
        except ValueError:
            raise InputError(f"{file}:{number}: not a YOLO line; expected a class number and numbers") from None
        if not 0 <= category < MOST_CLASSES:
            raise InputError(f"{file}:{number}: class {category}; expected 0 to {MOST_CLASSES - 1}")
        if not all(math.isfinite(v) for v in values):
            raise InputError(f"{file}:{number}: a number is not finite")
        count = len(values)
        more = {"score": values.pop()} if count % 2 and count > 4 else {}
        if len(values) == 4:
            cx, cy, w, h = values
            # Six written digits leave a box at the border a hair outside its picture.
            x0, x1 = (_snapped(x * width, width) for x in (cx - w / 2, cx + w / 2))
            y0, y1 = (_snapped(y * height, height) for y in (cy - h / 2, cy + h / 2))
            yield _Line(category, [x0, y0, x1 - x0, y1 - y0], more)
        elif len(values) >= 6:
            xs, ys = [v * width for v in values[0::2]], [v * height for v in values[1::2]]
            bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            # Without its picture a polygon has no pixels.
            mask = painted_rle(np.array([xs, ys]).T, height, width) if width > 1 or height > 1 else None
            yield _Line(category, bbox, {**({"segmentation": mask} if mask else {}), **more})
        else:
            raise InputError(
                f"{file}:{number}: {count} numbers after the class; "
                "expected 4 (a box) or 6 and more (a polygon), and perhaps a score"
            )


def _snapped(value: float, side: int) -> float:
    """A coordinate within 1e-5 of the picture's side from 0 or the side: exactly there."""
    for edge in (0.0, float(side)):
        if abs(value - edge) <= 1e-5 * side:
            return edge
    return value


def _yolo_names(folder: Path) -> dict[int, str]:
    """Class names of a YOLO set, from the first names file in its folder or beside it."""
    for file in (place / name for place in (folder, folder.parent) for name in NAMES):
        if not file.is_file():
            continue
        text = _text(file)
        if file.suffix in (".txt", ".names"):
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        return _yaml_names(text)
    return {}


def _yaml_names(text: str) -> dict[int, str]:
    """The `names` of a data.yaml: `[a, b]`, `- a` lines or `0: a` lines. No YAML package is needed for these."""
    lines = iter(text.splitlines())
    first = next((line.partition(":")[2] for line in lines if line.startswith("names:")), "").strip()
    if first.startswith("["):
        while "]" not in first:
            first += next(lines, "]")
        return dict(enumerate(_bare(word) for word in first[1 : first.index("]")].split(",") if word.strip()))
    names: dict[int, str] = {}
    for line in lines:
        if line and not line.startswith((" ", "-", "#")):
            break
        number, colon, name = line.strip().partition(":")
        if line.strip().startswith("-"):
            names[len(names)] = _bare(line.strip()[1:])
        elif colon and number.isdigit():
            names[int(number)] = _bare(name)
    return names


def _bare(word: str) -> str:
    return word.split(" #")[0].strip().strip("'\"")


def _read_voc(folder: Path, files: list[Path], images: ImageSource) -> Document:
    pictures, found = [], []
    for number, file in enumerate(files, 1):
        try:
            root = ElementTree.fromstring(_text(file))
            name = _voc_picture(root.findtext("filename") or "", file.stem, images)
            width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
            for entry in root.iter("object"):
                corners = [float(entry.findtext(f"bndbox/{c}") or "?") for c in ("xmin", "ymin", "xmax", "ymax")]
                found.append((number, entry.findtext("name") or "", corners))
        except (ElementTree.ParseError, ValueError) as error:
            raise InputError(f"{file}: not a VOC annotation ({error})") from None
        if not (width and height):
            try:
                width, height = images.size(name)
            except ImageProblem:
                width = height = 0
        pictures.append({"id": number, "file_name": name, "width": width, "height": height})
    # VOC counts pixels from 1 and includes the last one; a zero anywhere tells of a tool that counts from 0.
    start = 0 if any(min(corners[:2]) < 1 for _, _, corners in found) else 1
    names = sorted({name for _, name, _ in found})
    annotations: list[Document] = []
    for number, name, (x0, y0, x1, y1) in found:
        bbox = [x0 - start, y0 - start, x1 - x0 + start, y1 - y0 + start]
        annotations.append(_annotation(len(annotations) + 1, number, names.index(name) + 1, bbox))
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    return {"images": pictures, "annotations": annotations, "categories": categories}


def _voc_picture(name: str, stem: str, images: ImageSource) -> str:
    """The picture that a VOC file names, else the one that is called like the file."""
    for find, wanted in ((images.find, name), (images.find_id, stem)):
        try:
            return find(wanted)
        except ImageProblem:
            continue
    return name or stem


def _annotation(number: int, image: int, category: int, bbox: list[float]) -> Document:
    area = bbox[2] * bbox[3]
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": 0}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
