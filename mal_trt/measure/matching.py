"""Annotations and labels of one document, met by annotation id. What masks are worth, `metrics` and `points` say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.formats.boxes import Document
from mal_trt.formats.ids import identity, same_id
from mal_trt.formats.picture_names import bare_name
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.document_rows import side


class Labels:
    """The label records of a document's annotations. Of several with one id the first counts."""

    def __init__(self, truth: Document, records: list[Any], images: Any = ()) -> None:
        """records need `id` and `segmentation`; InputError for one without an id. images: the labels' own records of
        pictures, where there are any."""
        self.pictures: dict[Any, dict[str, Any]] = {}
        for key, picture in by_id(truth["images"]):
            self.pictures.setdefault(key, picture)  # of several with one id the first, as `label` has it
        self._found: dict[Any, Any] = {}
        self._quality: dict[Any, Any] = {}
        self._names: dict[Any, str] = {}
        for key, image in by_id(images):
            self._names.setdefault(key, _called(image))
        self._images: dict[Any, Any] = {}
        for index, record in enumerate(records):
            try:
                key = usable_key(record, "id")
            except ValueError:
                raise InputError(f"label record {index} has no `id`; masks meet annotations by id") from None
            self._found.setdefault(key, record.get("segmentation"))
            self._quality.setdefault(key, record.get("quality"))
            self._images.setdefault(key, record.get("image_id"))
        self._texts = {str(key) for key in self._found}

    def __contains__(self, key: Any) -> bool:
        return bool(self._found.get(key))

    def missing(self, key: Any) -> str:
        """Why an annotation has no label, as far as ids tell."""
        if key in self._found or str(key) not in self._texts:
            return "not labelled"
        kinds = ("text", "a number") if isinstance(key, str) else ("a number", "text")
        return "not labelled: its id is {}, that of the label is {}".format(*kinds)

    def quality(self, key: Any) -> Any:
        """What the label of an annotation says of itself, None if nothing."""
        return self._quality.get(key)

    def mask(self, annotation: dict[str, Any]) -> RLE:
        """The mask of one annotation that has a label; ValueError says why it cannot be had."""
        height, width = self.size(annotation)
        key = usable_key(annotation, "id")
        own, there = _called(self.picture(annotation)), self._names.get(same_id(self._images[key], self._names), "")
        if own and there and own != there:
            raise ValueError("label: of another picture, though of the same id")
        try:
            return to_rle(self._found[key], height, width)
        except ValueError as error:
            raise ValueError(f"label: {error}") from None

    def picture(self, annotation: dict[str, Any]) -> dict[str, Any]:
        """The record of an annotation's picture; ValueError if there is none."""
        image = same_id(usable_key(annotation, "image_id"), self.pictures)
        if image not in self.pictures:
            raise ValueError("unknown image")
        return self.pictures[image]

    def size(self, annotation: dict[str, Any]) -> tuple[int, int]:
        """Height and width of an annotation's picture; the document may leave them to the label."""
        picture = self.picture(annotation)
        label = self._found[usable_key(annotation, "id")]
        height, width = side(picture.get("height")), side(picture.get("width"))
        if height is None or width is None:
            size: Any = label.get("size") if isinstance(label, dict) else None
            if not _is_size(size):
                raise ValueError("image without height and width")
            height, width = size
        return height, width


def usable_key(annotation: Any, field: str) -> Any:
    """An id in a record, as `label` knows it; ValueError if there is none."""
    key = identity(annotation.get(field)) if isinstance(annotation, dict) else None
    if key is None:
        raise ValueError(f"no usable {field}")
    return key


def by_id(records: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The records that are objects with an id, with it."""
    entries = records if isinstance(records, list) else []
    found = ((identity(e.get("id")), e) for e in entries if isinstance(e, dict))
    return ((key, entry) for key, entry in found if key is not None)


def category_names(truth: Document) -> dict[Any, str]:
    """Class names by category id."""
    return {key: str(entry.get("name", "")) for key, entry in by_id(truth.get("categories"))}


def _called(image: dict[str, Any]) -> str:
    """A picture's name as far as the tools that labels pass through leave it alone."""
    name = image.get("file_name")
    return bare_name(name) if isinstance(name, str) else ""


def most_common(reasons: Mapping[str, int]) -> str:
    """The three commonest reasons why records were left out, with their counts."""
    return "; ".join(f"{reason}: {count}" for reason, count in Counter(reasons).most_common(3)) or "it is empty"


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(v) is int and v > 0 for v in value)
