"""A set of labels made of masks, for the writers' tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import encode_rle
from mal_trt.writers.labels import Category, Object, Picture

CATEGORIES = {9: Category(9, 0, "tall & <wide>"), 3: Category(3, 1, "cup")}
HEIGHT, WIDTH = 11, 13

# Pictures of one size with masks of every kind: dots, holes in holes, lines, nothing.
masks = arrays(bool, (HEIGHT, WIDTH))
pictures_of_masks = st.lists(st.lists(masks, max_size=3), min_size=1, max_size=2)


class MaskSet:
    """See `LabelSet`. masks: of each picture, bool [H,W]; pictures are called a.jpg, b/b.jpg, c.jpg, ..."""

    def __init__(self, masks: Sequence[Sequence[np.ndarray]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
        self.categories = CATEGORIES
        self.size, self.masks = size, masks
        self._pictures = []
        number = 0
        for place, of_picture in enumerate(masks):
            objects = []
            for mask in of_picture:
                number += 1
                objects.append(_object(number, place + 1, mask))
            letter = chr(97 + place)
            name = f"{letter}/{letter}.jpg" if place == 1 else f"{letter}.jpg"
            self._pictures.append(Picture(name, size[1], size[0], objects))

    def pictures(self) -> Iterator[Picture]:
        return iter(self._pictures)

    def objects(self) -> Iterator[Object]:
        return (thing for picture in self._pictures for thing in picture.objects)

    def pieces(self) -> list[tuple[str, str | None]]:
        categories = [{"id": c.key, "name": c.name} for c in CATEGORIES.values()]
        return [("images", None), ("annotations", None), ("categories", json.dumps(categories))]

    def image_records(self) -> Iterator[str]:
        for number, picture in enumerate(self._pictures, 1):
            record = {"id": number, "file_name": picture.name, "width": picture.width, "height": picture.height}
            yield json.dumps(record)


def _object(number: int, image: int, mask: np.ndarray) -> Object:
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), xs.max() + 1.0, ys.max() + 1.0) if len(xs) else (0.0, 0.0, 1.0, 1.0)
    category = CATEGORIES[9 if number % 2 else 3]
    record: dict[str, Any] = {
        "id": number,
        "image_id": image,
        "category_id": category.key,
        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
        "score": 0.5,
    }
    rle = encode_rle(LocalMask(0, 0, mask), height, width)
    return Object(record, category, box, rle, int(mask.sum()))
