"""`mal-trt merge`: the shards of a run become one COCO document."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_new, replaced
from mal_trt.base.progress import Progress
from mal_trt.distributed.place import Place
from mal_trt.distributed.plan import FILES, Plan, read_plan
from mal_trt.distributed.shard_file import read_record, read_rows
from mal_trt.geometry.marks import marks
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.record import check_beside, skipped_path
from mal_trt.labelling.records import identity
from mal_trt.writers.coco import write_list
from mal_trt.writers.files import text_file

TOGETHER = 256  # masks looked at at once


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


@dataclass
class _Numbers:
    """Ids of the whole document. In files they begin anew in each, so pictures and boxes are numbered again; classes
    are known by their names. In slices of one document (not `again`) all stays as it is."""

    again: bool
    categories: dict[str, Any] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    pictures: int = 0
    boxes: int = 0

    def classes(self, listed: Any) -> dict[Any, Any]:
        """The ids that a shard's classes have here, by theirs; new ones are added."""
        found = {}
        for one in listed if isinstance(listed, list) else []:
            if not isinstance(one, dict):
                continue
            name = str(one.get("name", one.get("id")))
            if name not in self.categories:
                self.categories[name] = len(self.categories) + 1
                self.listed.append({**one, "id": self.categories[name]})
            found[identity(one.get("id"))] = self.categories[name]
        return found


def merge(shards: str | Path, out: str | Path, *, progress: bool = True) -> Merged:
    """Put the shards of a run together, as COCO JSON. Skipped records are listed beside `out`, in
    `labels.skipped.json` of `labels.json`.

    - `shards`: the folder or URL that `label_shards` wrote. - `out`: the file to write. It must not exist.

    InputError if shards are missing or not whole, or if `out` exists.
    """
    out, place = Path(out), Place(shards, make=False)
    check_new(out)
    check_beside(out, ())
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
    skipped_list = skipped_path(out)
    pages = [out.with_name(f".{out.name}.{name}") for name in ("annotations", "skipped")]
    try:
        with replaced(out, "make room and run again") as part:
            with Progress("merging", plan.shards, unit="shards", show=progress) as bar:
                merged = _merged(place, plan, part, pages, bar.advance)
            if merged[2]:
                os.replace(pages[1], skipped_list)
            else:
                skipped_list.unlink(missing_ok=True)
    finally:
        for file in pages:
            file.unlink(missing_ok=True)
    pictures, written, skipped = merged
    total = written + sum(skipped.values())
    return Merged(plan.shards, pictures, total, written, skipped, out, skipped_list if skipped else None)


def _merged(place: Place, plan: Plan, out: Path, pages: list[Path], done: Any) -> tuple[int, int, dict[str, int]]:
    """Pictures, masks and skipped records of all shards. Boxes go to a file of their own, which is copied in last."""
    numbers = _Numbers(plan.kind == FILES)
    skipped: Counter[str] = Counter()
    others: dict[str, str] = {}
    written = 0
    with tempfile.TemporaryDirectory(prefix="mal-trt-shard-") as folder, text_file(out) as file:
        file.write('{\n"images": ')

        def images() -> Iterator[str]:
            nonlocal written
            with text_file(pages[0]) as masks, text_file(pages[1]) as left:
                for number in range(plan.shards):
                    shard = Path(folder) / "shard.parquet"
                    where = f"{place.out}/{plan.name(number)}"
                    place.fetch(plan.name(number), shard)
                    document = read_record(shard, where)["document"]
                    parts = {key: json.loads(value) for key, value in document["parts"]}
                    kinds = numbers.classes(parts.pop("categories", None)) if numbers.again else {}
                    others.update({key: json.dumps(value) for key, value in parts.items() if key not in others})
                    pictures: dict[Any, Any] = {}
                    for image, (name, width, height) in zip(document["images"], document["sizes"], strict=True):
                        known = {"file_name": name, "width": width, "height": height}
                        image = {**{k: v for k, v in known.items() if v is not None}, **image}
                        if numbers.again:
                            numbers.pictures += 1
                            pictures[identity(image.get("id"))] = image["id"] = numbers.pictures
                        yield json.dumps(image)
                    for row, told in _told(read_rows(shard, where)):
                        record = json.loads(row["record"])
                        if numbers.again:
                            numbers.boxes += 1
                            record["id"] = numbers.boxes
                            for key, met in (("image_id", pictures), ("category_id", kinds)):
                                record[key] = met.get(identity(record.get(key)), record.get(key))
                        if row["reason"] is None:
                            masks.write(f"{',' if written else ''}\n{json.dumps(_labelled(record, row, told))}")
                            written += 1
                            continue
                        entry = {"id": record.get("id"), "image_id": record.get("image_id"), "reason": row["reason"]}
                        entry |= {"detail": row["detail"]} if row["detail"] else {}
                        left.write(f"{',' if skipped.total() else '['}\n{json.dumps(entry)}")
                        skipped[row["reason"]] += 1
                    done(1)
                left.write("\n]\n" if skipped else "")

        count = 0

        def counted() -> Iterator[str]:
            nonlocal count
            for text in images():
                count += 1
                yield text

        write_list(file, counted())
        file.write(',\n"annotations": [')
        with open(pages[0], encoding="utf-8") as masks:
            while block := masks.read(1 << 20):
                file.write(block)
        file.write("\n]")
        categories = json.dumps(numbers.listed) if numbers.again else others.pop("categories", "[]")
        for key, value in {**others, "categories": categories}.items():
            file.write(f",\n{json.dumps(key)}: {value}")
        file.write("\n}\n")
    return count, written, dict(skipped.most_common())


def _told(rows: Iterator[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows, each with what `geometry.marks` tells of its mask; nothing of those without a mask or a score."""
    while page := list(islice(rows, TOGETHER)):
        scored = [row for row in page if row["reason"] is None and row["score"] is not None]
        boxes = [[row[f"bbox_{name}"] for name in ("x", "y", "width", "height")] for row in scored]
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
        found = iter(marks([_rle(row) for row in scored], [row["area"] for row in scored], corners))
        for row in page:
            yield row, next(found) if row["reason"] is None and row["score"] is not None else {}


def _rle(row: dict[str, Any]) -> RLE:
    return {"size": [row["height"], row["width"]], "counts": row["counts"]}


def _labelled(record: dict[str, Any], row: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """An annotation as `label` writes it."""
    found = {**record, "segmentation": _rle(row), "area": row["area"]}
    found.setdefault("iscrowd", 0)
    if row["score"] is not None:
        found["quality"] = {"score": row["score"], **told}
    return found
