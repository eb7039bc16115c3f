"""Boxes of any format that is read, as a COCO document: whole, or piece by piece."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError
from mal_trt.base.files import file_kind
from mal_trt.base.places import Copies, ending_of, places
from mal_trt.base.remote import as_place, is_url
from mal_trt.formats.box_copies import BoxCopies
from mal_trt.formats.images import EACH, ImageSource, open_images
from mal_trt.formats.jsonstream import Entry, document_entries, read_document
from mal_trt.formats.picture_tables import opened_parquet, picture_column
from mal_trt.formats.reading.build import Document, ReadResult, passed_over
from mal_trt.formats.reading.coco import merged, named, read_coco
from mal_trt.formats.reading.cvat import read_cvat
from mal_trt.formats.reading.detect import ENDINGS, TITLES, detect
from mal_trt.formats.reading.kitti import read_kitti
from mal_trt.formats.reading.label_studio import read_label_studio
from mal_trt.formats.reading.labelme import read_labelme
from mal_trt.formats.reading.nowhere import Nowhere
from mal_trt.formats.reading.parquet import read_parquet
from mal_trt.formats.reading.places import common_home, split_name, split_of
from mal_trt.formats.reading.png_instance import read_png_instance
from mal_trt.formats.reading.rescaled import rescaled
from mal_trt.formats.reading.results import collected, is_results, with_pictures
from mal_trt.formats.reading.table import read_csv
from mal_trt.formats.reading.unread import check_not_panoptic
from mal_trt.formats.reading.via import read_via
from mal_trt.formats.reading.voc import read_voc, voc_splits
from mal_trt.formats.reading.webdataset import read_webdataset, webdataset_sha256
from mal_trt.formats.reading.yolo import read_yolo
from mal_trt.formats.reading.yolo_layout import YoloSet, yolo_set

__all__ = ["Boxes", "BoxesLike", "Document", "as_boxes", "boxes_sha256", "open_pictures", "read_boxes", "read_coco"]

READERS: dict[str, Callable[[list[Path], ImageSource], ReadResult]] = {
    "coco": lambda files, images: merged(files),
    "kitti": read_kitti,
    "label-studio": read_label_studio,
    "labelme": read_labelme,
    "png-instance": read_png_instance,
    "via": read_via,
    "voc": read_voc,
}
# Formats whose files may say themselves which split a record belongs to.
SPLIT_READERS: dict[str, Callable[[list[Path], ImageSource, str | None], ReadResult]] = {
    "csv": read_csv,
    "cvat": read_cvat,
    "parquet": read_parquet,
}
# Folders whose name says that the pictures lie beside them.
BESIDE = ("annotations", "labels", "labels_2", "label_2")


class Boxes:
    """Boxes at a path: a file, a folder or the root of a data set, in any format that is read.

    Give it in the place of a path where that does not say enough:

        label("photos", Boxes("shapes", split="train"), out="labels.json")

    - `path`: also a URL, and a pattern such as `shard-{000..123}.tar` for several files.
    - `format`: "coco", "yolo", "voc", "kitti", "labelme", "csv", "parquet", "cvat", "label-studio", "via",
      "png-instance" or "webdataset". None: found out from the content.
    - `split`: take only one split of the data set, such as "train".
    - `rescale`: scale the boxes, because the pictures were resized after the boxes were made.
    - `image_list`: the COCO file whose pictures and classes a bare list of COCO results is of.

    InputError if there is nothing to read.
    """

    def __init__(
        self,
        path: str | Path,
        format: str | None = None,
        split: str | None = None,
        rescale: bool = False,
        image_list: str | Path | None = None,
    ):
        self.path = as_place(path)
        self.split, self.rescale = split, rescale
        self._copies = BoxCopies(str(path)) if is_url(path) and ending_of(places(path)) != ".tar" else None
        self._here = self.path if self._copies is None else self._copies.path
        self.image_list = None if image_list is None else Path(image_list)
        with self._naming_urls():
            self._found = detect(self._here, format)
            self.notes = self._strays
            if self.image_list is not None and not self.bare:
                raise InputError(f"{self.image_list}: {self} names its pictures itself; leave out the image list")

    def __str__(self) -> str:
        return str(self.path)

    @property
    def title(self) -> str:
        """What is read, in words: "a YOLO data set"."""
        if self.image_list is not None:
            return "a list of COCO results"
        if self._found.format == "coco" and len(self._found.files) > 1:
            return f"{len(self._files):,} COCO documents"
        return TITLES[self._found.format]

    @property
    def streamed(self) -> bool:
        """Whether it is one COCO file, which is never held whole."""
        return self._found.format == "coco" and len(self._found.files) == 1

    @property
    def bare(self) -> bool:
        """Whether it is a list of COCO results, which names its pictures and classes by their ids alone."""
        return self.streamed and is_results(self._files[0])

    def document(self, images: ImageSource) -> Document:
        """{"images", "annotations", "categories"}, a COCO file's as it stands. In other formats pictures get ids 1, 2,
        ... in the order of the files' names, boxes likewise. Boxes are XYWH, picture pixels, top left origin,
        half-open; a record that cannot be one has no bbox.

        InputError names the file and, where there are lines, the line.
        """
        with self._naming_urls():
            if self.image_list is not None:
                document = collected(self.entries(images))
            else:
                document = read_coco(self._files[0]) if self.streamed else self._read(images).document
                for record in document["annotations"][:1] if self.streamed else ():
                    check_not_panoptic(self._files[0], record)
        return rescaled(document, images) if self.rescale else document

    def entries(self, images: ImageSource) -> Iterator[Entry]:
        """The document, or a bare list of results, piece by piece."""
        with self._naming_urls():
            if self.streamed:
                yield from self._streamed()
                return
            read = self._read(images)
        yield from document_entries(read.document, read.reasons)

    def sha256(self) -> str:
        """SHA-256, hexadecimal, of all that is read: of the file, or of the label files with their names, and of the
        class names."""
        if self._found.format == "webdataset":
            return webdataset_sha256(self._shards)
        here = Path(self._here)
        if self._found.format != "yolo" and here in self._files and self.image_list is None:
            return file_sha256(here)
        digest = hashlib.sha256()
        for file in self._files:
            digest.update(f"{file.as_posix().removeprefix(here.as_posix())} {file_sha256(file)}\n".encode())
        if self._found.format == "yolo":
            digest.update(json.dumps(self._yolo.names).encode())
        if self.image_list is not None:
            digest.update(file_sha256(self.image_list).encode())
        return digest.hexdigest()

    def home(self) -> str | Path:
        """Where the pictures are, as `open_images` takes it, where the boxes say it; InputError where they do not."""
        if self._found.format == "webdataset" or self._holds_pictures:
            return self._home_of_files
        if self._found.format == "png-instance":  # whose own pictures are called as those that they are of
            raise InputError(f"{self.path}: does not say where its pictures are; give --images")
        with self._naming_urls():
            nowhere = self._asked()
        if nowhere.asked and all(is_url(paths[0]) for paths in nowhere.asked):
            return EACH
        if self._copies is not None:
            return self._copies.home(nowhere.asked)
        base = self._found.folder
        home = common_home(nowhere.asked, base)
        if home is None:
            home = base.absolute()
            if home.name in BESIDE and not open_images(home).count():
                home = home.parent
            if not open_images(home).count():
                wanted = f" ({nowhere.asked[0][0]!r} is not in {home})" if nowhere.asked else ""
                raise InputError(f"{self.path}: does not say where its pictures are{wanted}; give --images")
        return home

    def _streamed(self) -> Iterator[Entry]:
        if self.image_list is not None:
            return with_pictures(self._files[0], self.image_list)
        return self._checked(named(read_document(self._files[0])))

    def _checked(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if entry.key == "annotations" and entry.index == 0:
                check_not_panoptic(self._files[0], entry.value)
            yield entry

    def _asked(self) -> Nowhere:
        """The pictures that the boxes name."""
        nowhere = Nowhere()
        if self.streamed:
            for entry in self._streamed():
                if entry.key == "images" and entry.index is not None and isinstance(entry.value.get("file_name"), str):
                    nowhere.asked.append([entry.value["file_name"]])
        else:
            self._read(nowhere)
            self.notes.clear()
        return nowhere

    @property
    def _holds_pictures(self) -> bool:
        """Whether the boxes' files are those of the pictures too."""
        if self._found.format != "parquet":
            return False
        with self._naming_urls(), opened_parquet(self._files[0], Copies()) as table:
            return picture_column(table.schema_arrow) is not None
        return False

    @property
    def _home_of_files(self) -> str | Path:
        """The place of the pictures that are in the boxes' own files."""
        if not isinstance(self.path, Path) or file_kind(self.path) != "a folder":
            return self.path
        return self.path / f"*{ENDINGS[self._found.format][0]}"

    @property
    def _shards(self) -> list[str]:
        """The tar files of a WebDataset."""
        return [str(file) for file in self._found.files] or places(self.path)

    def _naming_urls(self) -> AbstractContextManager[None]:
        return nullcontext() if self._copies is None else self._copies.naming_urls()

    @property
    def _files(self) -> Sequence[Path]:
        if self._found.format == "yolo":
            return [label.file for label in self._yolo.labels]
        return self._split_files

    @cached_property
    def _yolo(self) -> YoloSet:
        found = yolo_set(Path(self._here), self.split)
        if not found.labels:
            raise InputError(f"{self.path}: holds no .txt files of labels; expected YOLO labels")
        return found

    @cached_property
    def _split_files(self) -> tuple[Path, ...]:
        if self.split is None or self._split_inside:
            return self._found.files
        chosen = tuple(file for file, split in self._splits.items() if split == split_name(self.split))
        if not chosen:
            there = ", ".join(sorted(set(filter(None, self._splits.values())))) or "none"
            raise InputError(f"{self.path}: no split {self.split}; its splits: {there}")
        return chosen

    @cached_property
    def _splits(self) -> dict[Path, str | None]:
        """The split of each file by its folder or name, or by the lists of a VOC data set."""
        home = self._found.folder.absolute()
        splits = {file: split_of(Path(home.name) / file.absolute().relative_to(home)) for file in self._found.files}
        if self._found.format == "voc":
            splits |= voc_splits(self._found.files, self.split)
        return splits

    @property
    def _split_inside(self) -> bool:
        """Whether the records say which split they belong to, not the files."""
        names = self._splits.values()
        return self._found.format in SPLIT_READERS and split_name(self.split or "") not in names

    def _read(self, images: ImageSource) -> ReadResult:
        format, files = self._found.format, list(self._files)
        if format == "webdataset":
            read = read_webdataset(self._shards, images)
        elif format == "yolo":
            read = read_yolo(self._yolo, images)
        elif format in SPLIT_READERS:
            read = SPLIT_READERS[format](files, images, self.split if self._split_inside else None)
        else:
            read = READERS[format](files, images)
        self.notes[:] = [*read.notes, *self._strays]
        return read

    @property
    def _strays(self) -> list[str]:
        """A note of what lies among the files and is none of them."""
        stray = [file.name for file in self._found.stray]
        return [passed_over(stray)] if stray else []


BoxesLike = str | Path | Boxes
Source = tuple[str | Path | None, BoxesLike]  # pictures, None where the boxes say where they are, and their boxes


def as_boxes(boxes: BoxesLike) -> Boxes:
    """Boxes, of a path too."""
    return boxes if isinstance(boxes, Boxes) else Boxes(boxes)


def open_pictures(images: str | Path | None, boxes: BoxesLike) -> ImageSource:
    """The pictures at a path; None: those that the boxes say."""
    return open_images(as_boxes(boxes).home() if images is None else images)


def read_boxes(boxes: BoxesLike, images: ImageSource) -> Document:
    """See `Boxes.document`."""
    return as_boxes(boxes).document(images)


def boxes_sha256(boxes: BoxesLike) -> str:
    """See `Boxes.sha256`."""
    return as_boxes(boxes).sha256()
