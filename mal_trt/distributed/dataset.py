"""Rows of a Ray Dataset, each a picture with its boxes, get masks. Files are labelled by `run`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, MalTrtError, one_line
from mal_trt.base.remote import is_url
from mal_trt.distributed.ray_run import LOCAL, connect
from mal_trt.distributed.shard_labeler import check_versions, running_versions
from mal_trt.formats.picture_problem import ImageProblem
from mal_trt.formats.picture_stores import UrlPictures
from mal_trt.formats.pixels import read_picture

if TYPE_CHECKING:
    from mal_trt.labelling.labeler import Labeler, Masks

ROWS = 16  # pictures that an actor gets at once


def label_dataset(
    ds: Any,
    model: str | Path = "bundled",
    *,
    image: str = "image",
    boxes: str = "boxes",
    box_format: str = "xywh",
    workers: int | None = None,
    gpus: float = 0.0,
    rows: int = ROWS,
    **options: Any,
) -> Any:
    """A Ray Dataset whose rows have masks too. Nothing is done until it is read or written.

    - `ds`: rows with a picture in the column `image` (the bytes of its file, Hugging Face's {bytes, path}, a path, or a
      URL) and boxes in the column `boxes`, lists of four numbers, pixels.
    - `box_format`: "xywh" or "xyxy", as for `Labeler`, which `model` and `options` are for too.
    - `workers`: how many models run at most. None: Ray decides. `gpus`: of each, also a part of one.
    - `rows`: pictures that a model gets at once.

    Added columns, lists in the order of the boxes: `mask_counts` (COCO's run lengths), `mask_area` (pixels) and
    `mask_score` (0 to 1); and `mask_height`, `mask_width` (of the picture), `model_sha256`, and `problem`, why a row
    has no masks, else null.

    InputError if the model cannot be used, or the dataset has no such columns. A worker with other versions raises
    when the dataset is read.
    """
    connect(LOCAL)
    names = ds.columns()
    for name in (image, boxes):
        if name not in names:
            raise InputError(f"the dataset has no column {name!r}; its columns are {', '.join(names)}")
    file = resolve_model(model)
    given: dict[str, Any] = {
        "content": file.read_bytes() if file.suffix.lower() == ".onnx" else None,
        "file": str(file),
        "sha": file_sha256(file),
        "options": {"threads": 1, **options},
        "columns": (image, boxes, box_format),
        "versions": running_versions(),
    }
    return ds.map_batches(
        _Rows,
        fn_constructor_kwargs={"given": given},
        batch_size=rows,
        batch_format="pyarrow",
        concurrency=(1, workers) if workers else None,
        num_cpus=given["options"]["threads"],
        num_gpus=gpus or None,
    )


class _Rows:
    """An actor with a model."""

    def __init__(self, given: dict[str, Any]) -> None:
        from mal_trt.distributed.ray_run import kept_model
        from mal_trt.labelling.labeler import Labeler

        check_versions(given["versions"])
        content = given["content"]
        model = Path(given["file"]) if content is None else kept_model(lambda: content, given["sha"])
        self._labeler: Labeler = Labeler(model, **given["options"])
        self._columns, self._sha, self._urls = given["columns"], given["sha"], UrlPictures()

    def __call__(self, table: Any) -> Any:
        import pyarrow as arrow

        image, boxes, format = self._columns
        added: list[dict[str, Any]] = []
        for picture, wanted in zip(table.column(image).to_pylist(), table.column(boxes).to_pylist(), strict=True):
            try:
                found = self._labeler(read_picture(io.BytesIO(self._bytes(picture))), wanted or [], format)
                added.append({**_columns(found), "problem": None})
            except (MalTrtError, ImageProblem, OSError) as error:
                added.append({**_EMPTY, "problem": one_line(error, 300)})
        kinds = arrow.schema(
            [
                ("mask_counts", arrow.list_(arrow.string())),
                ("mask_area", arrow.list_(arrow.int64())),
                ("mask_score", arrow.list_(arrow.float64())),
                ("mask_height", arrow.int32()),
                ("mask_width", arrow.int32()),
                ("problem", arrow.string()),
            ]
        )
        new = arrow.Table.from_pylist(added, kinds)
        for name in new.column_names:
            table = table.append_column(name, new.column(name))
        return table.append_column("model_sha256", arrow.array([self._sha] * len(added), arrow.string()))

    def _bytes(self, picture: Any) -> bytes:
        if isinstance(picture, dict):
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, bytes):
            return picture
        if is_url(picture):
            return self._urls.read(str(picture))
        return Path(str(picture)).read_bytes()


_EMPTY = {"mask_counts": None, "mask_area": None, "mask_score": None, "mask_height": None, "mask_width": None}


def _columns(found: Masks) -> dict[str, Any]:
    return {
        "mask_counts": [rle["counts"] for rle in found.rle],
        "mask_area": found.areas.tolist(),
        "mask_score": list(found.quality),
        "mask_height": found.height,
        "mask_width": found.width,
    }
