"""`mal-trt merge`: the shards of a run become one COCO document."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_new, make_folder, replaced
from mal_trt.base.progress import Progress
from mal_trt.distributed.place import Place
from mal_trt.distributed.plan import FILES, Plan, read_plan
from mal_trt.distributed.shard_file import read_record, read_rows
from mal_trt.formats.ids import identity
from mal_trt.geometry.mask_stats import mask_stats
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.run_record import check_beside, skipped_path
from mal_trt.writers.coco import write_list
from mal_trt.writers.files import text_file

TOGETHER = 256  # masks that are measured at once


@dataclass(frozen=True)
class Merged:
    """What was put together. total: records; written and all of skipped, by reason, make it up. skipped_list: the file
    that names each skipped record; None if there are none."""

    shards: int
    pictures: int
    total: int
    written: int
    skipped: dict[str, int]
    out: Path
    skipped_list: Path | None


def merge(shards: str | Path, out: str | Path, *, progress: bool = True) -> Merged:
    """Put the shards of a run together, as COCO JSON. Skipped records are listed beside `out`, in
    `labels.skipped.json` of `labels.json`.

    - `shards`: the folder or URL that `label_shards` wrote. - `out`: the file to write. It must not exist.

    InputError if shards are missing or not whole, or if `out` exists.
    """
    out, place = Path(out), Place(shards, make=False)
    plan = read_plan(place)
    if plan is None:
        raise InputError(f"{place.out}: holds no shards of `mal-trt label --shard-pictures` or `--ray`")
    if missing := plan.missing(place.names()):
        first = ", ".join(plan.name(number) for number in missing[:3])
        more = ", ..." if len(missing) > 3 else ""
        raise InputError(
            f"{place.out}: {len(missing):,} of {plan.shards:,} shards are missing ({first}{more}); "
            "run `mal-trt label` again, which makes only those"
        )
    make_folder(out.parent)
    check_new(out)
    check_beside(out, ())
    skipped_list = skipped_path(out)
    pages = [out.with_name(f".{out.name}.{name}") for name in ("annotations", "skipped")]
    document = _Merge(place, plan)
    try:
        with replaced(out, "make room and run again") as part:
            with Progress("merging", plan.shards, unit="shards", show=progress) as bar:
                document.write(part, pages, bar.advance)
            if document.skipped:
                os.replace(pages[1], skipped_list)
            else:
                skipped_list.unlink(missing_ok=True)
    finally:
        for file in pages:
            file.unlink(missing_ok=True)
    skipped = dict(document.skipped.most_common())
    total = document.written + document.skipped.total()
    listed = skipped_list if skipped else None
    return Merged(plan.shards, document.pictures, total, document.written, skipped, out, listed)


class _Merge:
    """The document of a plan's shards in the making.

    Files begin their ids anew in each shard, so there pictures and boxes are numbered again, and classes are known by
    their names. In slices of one document all stays as it is.
    """

    def __init__(self, place: Place, plan: Plan) -> None:
        self._place, self._plan, self._renumbers = place, plan, plan.kind == FILES
        self._classes: dict[str, int] = {}  # ids by names
        self._categories: list[dict[str, Any]] = []
        self._others: dict[str, str] = {}  # keys of the document besides its lists, as JSON
        self.pictures = self.written = 0
        self.skipped: Counter[str] = Counter()

    def write(self, out: Path, pages: Sequence[Path], done: Callable[[int], None]) -> None:
        """Write the document. pages: files for its boxes, which are copied in last, and for its skipped records. done:
        called for each shard."""
        with text_file(out) as file:
            file.write('{\n"images": ')
            with text_file(pages[0]) as masks, text_file(pages[1]) as left:
                write_list(file, self._read(masks, left, done))
                left.write("\n]\n" if self.skipped else "")
            file.write(',\n"annotations": [')
            with open(pages[0], encoding="utf-8") as masks:
                shutil.copyfileobj(masks, file)
            file.write("\n]")
            categories = json.dumps(self._categories) if self._renumbers else self._others.pop("categories", "[]")
            for key, value in {**self._others, "categories": categories}.items():
                file.write(f",\n{json.dumps(key)}: {value}")
            file.write("\n}\n")

    def _read(self, masks: TextIO, left: TextIO, done: Callable[[int], None]) -> Iterator[str]:
        """The records of all pictures; those of boxes go to `masks` and `left` meanwhile."""
        with tempfile.TemporaryDirectory(prefix="mal-trt-shard-") as folder:
            for number in range(self._plan.shards):
                shard = Path(folder) / "shard.parquet"
                name = self._plan.name(number)
                self._place.fetch(name, shard)
                yield from self._read_shard(shard, f"{self._place.out}/{name}", masks, left)
                done(1)

    def _read_shard(self, shard: Path, where: str, masks: TextIO, left: TextIO) -> Iterator[str]:
        document = read_record(shard, where)["document"]
        parts = {key: json.loads(value) for key, value in document["parts"]}
        kinds = self._known(parts.pop("categories", None)) if self._renumbers else {}
        for key, value in parts.items():
            self._others.setdefault(key, json.dumps(value))
        pictures: dict[Any, int] = {}
        for image, (name, width, height) in zip(document["images"], document["sizes"], strict=True):
            known = {"file_name": name, "width": width, "height": height}
            image = {**{k: v for k, v in known.items() if v is not None}, **image}
            self.pictures += 1
            if self._renumbers:
                pictures[identity(image.get("id"))] = image["id"] = self.pictures
            yield json.dumps(image)
        for row, stats in _with_stats(read_rows(shard, where)):
            record = json.loads(row["record"])
            if self._renumbers:
                record["id"] = self.written + self.skipped.total() + 1
                for key, ids in (("image_id", pictures), ("category_id", kinds)):
                    record[key] = ids.get(identity(record.get(key)), record.get(key))
            if row["reason"] is None:
                masks.write(f"{',' if self.written else ''}\n{json.dumps(_labelled(record, row, stats))}")
                self.written += 1
                continue
            entry = {"id": record.get("id"), "image_id": record.get("image_id"), "reason": row["reason"]}
            entry |= {"detail": row["detail"]} if row["detail"] else {}
            left.write(f"{',' if self.skipped else '['}\n{json.dumps(entry)}")
            self.skipped[row["reason"]] += 1

    def _known(self, listed: Any) -> dict[Any, int]:
        """The ids that a shard's classes have here, by theirs; new ones are added."""
        found = {}
        for one in listed if isinstance(listed, list) else []:
            if not isinstance(one, dict):
                continue
            name = str(one.get("name", one.get("id")))
            if name not in self._classes:
                self._classes[name] = len(self._classes) + 1
                self._categories.append({**one, "id": self._classes[name]})
            found[identity(one.get("id"))] = self._classes[name]
        return found


def _with_stats(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows, each with what `geometry.mask_stats` says of its mask; {} without a mask or a score."""
    while page := list(islice(rows, TOGETHER)):
        scored = [row for row in page if row["reason"] is None and row["score"] is not None]
        boxes = [[row[f"bbox_{name}"] for name in ("x", "y", "width", "height")] for row in scored]
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
        found = iter(mask_stats([_rle(row) for row in scored], [row["area"] for row in scored], corners))
        for row in page:
            yield row, next(found) if row["reason"] is None and row["score"] is not None else {}


def _rle(row: dict[str, Any]) -> RLE:
    return {"size": [row["height"], row["width"]], "counts": row["counts"]}


def _labelled(record: dict[str, Any], row: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    """An annotation as `label` writes it."""
    found = {**record, "segmentation": _rle(row), "area": row["area"]}
    found.setdefault("iscrowd", 0)
    if row["score"] is not None:
        found["quality"] = {"score": row["score"], **stats}
    return found
