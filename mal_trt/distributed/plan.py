"""The plan of a sharded run: which pictures and boxes belong to which shard, kept beside the shards."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError
from mal_trt.base.facts import changed
from mal_trt.base.places import ending_of, places
from mal_trt.distributed.place import Place
from mal_trt.formats.ids import identity
from mal_trt.formats.images import place_key
from mal_trt.labelling.job import LabelJob

RUN = "_run.json"
SCHEMA = 1
DOCUMENT, FILES = "document", "files"
REPEATED = "mal_trt_repeated"  # in a slice: places of annotations whose ids stand before them in another slice


@dataclass(frozen=True)
class Plan:
    """A run's shards. kind: slices of one document, or files that hold pictures and boxes. files: those. facts: what
    a run that goes on must have in common with the one that began."""

    kind: str
    shards: int
    files: tuple[str, ...]
    images: str
    facts: dict[str, str]

    def name(self, number: int) -> str:
        """The file of a shard."""
        return f"part-{number:06d}.parquet"

    def missing(self, there: Sequence[str]) -> list[int]:
        """Shards that are not among these files."""
        found = set(there)
        return [number for number in range(self.shards) if self.name(number) not in found]


def slice_name(number: int) -> str:
    """The file of a slice of the document."""
    return f"_slice-{number:06d}.json.gz"


def read_plan(place: Place) -> Plan | None:
    """The plan that is kept at a place, or None; InputError if it is none of ours."""
    content = place.read(RUN)
    if content is None:
        return None
    try:
        kept = json.loads(content)
        if kept["schema"] == SCHEMA:
            return Plan(kept["kind"], kept["shards"], tuple(kept["files"]), kept["images"], dict(kept["facts"]))
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{place.out}/{RUN}: not the plan of a run of this version of mal-trt; choose another --out")


def check_facts(place: Place, plan: Plan, facts: Mapping[str, str]) -> None:
    """InputError if a run was begun with other facts, saying which."""
    if differ := changed(plan.facts, facts):
        raise InputError(
            f"{place.out}: holds the shards of another run ({'; '.join(differ)}); go on with what it was begun with, "
            "or choose another --out"
        )


def make_plan(place: Place, job: LabelJob, pictures: int, facts: Mapping[str, str]) -> Plan:
    """Plan a run and keep the plan: a shard for each file of a pattern that holds pictures and boxes, else one for
    every `pictures` pictures of the document."""
    boxes, images = job.boxes, place_key(job.images)
    found = places(boxes.path)
    if str(boxes.path) == str(job.images) and ending_of(found) in (".tar", ".parquet"):
        plan = Plan(FILES, len(found), tuple(found), images, dict(facts))
    else:
        number = 0
        for content in _slices(boxes.document(job.source), pictures):
            place.put(slice_name(number), gzip.compress(json.dumps(content).encode(), mtime=0))
            number += 1
        plan = Plan(DOCUMENT, number, (), images, dict(facts))
    if not plan.shards:
        raise InputError(f"{boxes}: no pictures in it, so nothing can be labelled")
    place.put(RUN, json.dumps({"schema": SCHEMA, **asdict(plan)}, indent=1).encode())
    return plan


def _slices(document: dict[str, Any], pictures: int) -> Iterator[dict[str, Any]]:
    """Documents of up to `pictures` pictures each, with all records; those of unknown pictures come with the first."""
    rest = {key: value for key, value in document.items() if key not in ("images", "annotations")}
    images = document["images"]
    places_of: dict[Any, int] = {}
    for place, image in enumerate(images):
        if (key := identity(image.get("id"))) is not None:
            places_of.setdefault(key, place // pictures)
    gathered: dict[int, list[Any]] = {}
    repeated: dict[int, list[int]] = {}
    met: dict[Any, int] = {}  # the slice of each id
    for record in document["annotations"]:
        number = places_of.get(identity(record.get("image_id")), 0)
        own = gathered.setdefault(number, [])
        key = identity(record.get("id"))
        if key is not None and met.setdefault(key, number) != number:
            repeated.setdefault(number, []).append(len(own))
        own.append(record)
    for number in range(-(-len(images) // pictures)):
        part = images[number * pictures : (number + 1) * pictures]
        again = {REPEATED: repeated[number]} if number in repeated else {}
        yield {**rest, "images": part, "annotations": gathered.get(number, []), **again}


def read_slice(place: Place, number: int, file: Path) -> list[int]:
    """A slice of the document as a COCO file. Returns its REPEATED."""
    name, content = f"{place.out}/{slice_name(number)}", place.read(slice_name(number))
    if content is None:
        raise InputError(f"{name}: is gone; choose another --out and begin again")
    try:
        text = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{name}: damaged ({error}); choose another --out and begin again") from None
    repeated: list[int] = []
    if REPEATED.encode() in text:
        document = json.loads(text)
        repeated = document.pop(REPEATED, [])
        text = json.dumps(document).encode()
    try:
        file.write_bytes(text)
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror or error}); make room and run again") from None
    return repeated
