"""Boxes to train from: COCO documents and the pictures they name, kept as bytes and decoded when asked."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mal_trt.errors import InputError


@dataclass(frozen=True)
class TrainingBoxes:
    """Boxes of one or more documents, one row an annotation.

    boxes: float32 [N,4] XYXY original pixels. picture: int64 [N], index into `files`.
    files: where each picture lies. ids: (document, annotation id) of each row, for messages.
    """

    boxes: np.ndarray
    picture: np.ndarray
    files: list[PictureFile]
    ids: list[tuple[str, int]]

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class PictureFile:
    """A picture in a folder (member None) or inside a tar."""

    path: Path
    offset: int | None = None
    length: int = 0

    def read(self) -> np.ndarray:
        """The picture as uint8 [H,W,3] RGB, stored orientation."""
        if self.offset is None:
            data = self.path.read_bytes()
        else:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.length)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


def read_training_boxes(
    images: Sequence[Path],
    documents: Sequence[Path],
    min_area: float,
    max_area: float,
) -> TrainingBoxes:
    """Annotations worth training on, by MAL's filter.

    images[i] is the folder or tar of documents[i]. Kept: both sides over 2 px, the box inside the picture,
    min_area < w*h < max_area (original square pixels).
    """
    if len(images) != len(documents):
        raise InputError(f"{len(images)} picture sources for {len(documents)} box files; give one --images per --boxes")
    boxes: list[tuple[float, float, float, float]] = []
    picture: list[int] = []
    files: list[PictureFile] = []
    ids: list[tuple[str, int]] = []
    for source, document in zip(images, documents, strict=True):
        content = _read_document(document)
        listing = _list_pictures(source)
        index: dict[object, tuple[int, float, float]] = {}
        for record in content["images"]:
            name = str(record["file_name"])
            file = listing.get(name) or listing.get(Path(name).name)
            if file is not None:
                index[record["id"]] = (len(files), float(record["width"]), float(record["height"]))
                files.append(file)
        if not index:
            raise InputError(f"{document}: none of its {len(content['images'])} pictures is in {source}")
        for record in content["annotations"]:
            at = index.get(record["image_id"])
            if at is None:
                continue
            x, y, w, h = (float(v) for v in record["bbox"])
            inside = x >= 0 and y >= 0 and x + w <= at[1] and y + h <= at[2]
            if inside and w > 2 and h > 2 and min_area < w * h < max_area:
                boxes.append((x, y, x + w, y + h))
                picture.append(at[0])
                ids.append((document.name, int(record.get("id", len(ids)))))
    if not boxes:
        raise InputError(f"{', '.join(map(str, documents))}: no box over {min_area:g} square pixels to train from")
    return TrainingBoxes(np.asarray(boxes, np.float32), np.asarray(picture), files, ids)


def epoch_order(picture: np.ndarray, cap: int | None, seed: int, epoch: int) -> np.ndarray:
    """Rows of one epoch in random order, at most `cap` a picture, drawn anew each epoch; int64 [n]."""
    order = np.random.default_rng([seed, epoch]).permutation(len(picture))
    if cap is None:
        return order
    by_picture = order[np.argsort(picture[order], kind="stable")]
    sorted_picture = picture[by_picture]
    first = np.searchsorted(sorted_picture, sorted_picture)
    kept = np.zeros(len(picture), bool)
    kept[by_picture[np.arange(len(picture)) - first < cap]] = True
    return order[kept[order]]


def _read_document(path: Path) -> dict[str, list[dict]]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise InputError(f"{path}: not a COCO document (needs the lists `images` and `annotations`)")
    return content


def _list_pictures(source: Path) -> dict[str, PictureFile]:
    """Pictures by path inside the source and, where that is unambiguous enough, by bare name."""
    if source.is_dir():
        found: Iterable[tuple[str, PictureFile]] = (
            (str(p.relative_to(source)), PictureFile(p)) for p in sorted(source.rglob("*")) if p.is_file()
        )
    else:
        try:
            with tarfile.open(source, "r:") as tar:
                found = [(m.name, PictureFile(source, m.offset_data, m.size)) for m in tar.getmembers() if m.isfile()]
        except (OSError, tarfile.TarError) as error:
            raise InputError(f"{source}: neither a folder nor an uncompressed tar of pictures ({error})") from None
    listing: dict[str, PictureFile] = {}
    for name, file in found:
        listing[name] = file
        listing.setdefault(Path(name).name, file)
    return listing
