"""Labels shards, one after the other, with a model that is opened once: in this process, or as a Ray actor."""

from __future__ import annotations

import json
import platform
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.version import __version__
from mal_trt.base.versions import library_versions
from mal_trt.distributed.place import Place
from mal_trt.distributed.plan import FILES, Plan, read_slice
from mal_trt.distributed.shard_file import read_record, write_shard
from mal_trt.formats.boxes import Boxes
from mal_trt.formats.images import ImageSource, open_images
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.narrowing import in_passes
from mal_trt.labelling.pictures import LOST, gone
from mal_trt.labelling.pipeline import run_plan
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import batch_size
from mal_trt.labelling.workers import Settings

# Their versions decide what masks come out: the network's sums and the decoder's pixels.
DECIDING = ("onnxruntime", "pillow")


@dataclass(frozen=True)
class Done:
    """A shard that is there. again: it was there before."""

    number: int
    total: int
    labelled: int
    skipped: dict[str, int]
    seconds: float
    provider: str
    again: bool = False


@dataclass(frozen=True)
class ShardRun:
    """What all workers of a run share. out: the folder or URL of the shards. batch: see `LabelJob`. model_sha256: what
    the model must be."""

    plan: Plan
    out: str
    settings: Settings
    device: str
    batch: int | None
    model_sha256: str


class ShardLabeler:
    """Labels shards of a run. InputError if the model is another one."""

    def __init__(self, run: ShardRun) -> None:
        found = file_sha256(run.settings.model)
        if found != run.model_sha256:
            raise InputError(
                f"{run.settings.model}: on host {socket.gethostname()} this is another model (SHA-256 {found[:12]}..., "
                f"the run began with {run.model_sha256[:12]}...); give every machine the same file"
            )
        self._run, self._plan, self._place = run, run.plan, Place(run.out, make=False)
        self._predictor, self._masker = run.settings.open(run.device, run.settings.threads)
        self._batch = batch_size(run.batch, self._predictor.most)
        self._source: ImageSource | None = None

    def label(self, number: int, done: Callable[[int], None] = lambda boxes: None) -> Done:
        """Label one shard, or find that it is there. done: called with how many boxes have a mask or a reason now."""
        name = self._plan.name(number)
        with tempfile.TemporaryDirectory(prefix="mal-trt-shard-") as folder:
            file = Path(folder) / name
            if self._place.has(name):
                return _done(number, shard_record(self._place, name, file), again=True)
            began, clock = datetime.now(timezone.utc), time.monotonic()
            boxes, repeated, source = self._opened(number, Path(folder))
            journal = Journal(Path(folder) / "journal")
            try:
                with journal.guard():
                    write_plan(journal, {}, boxes, None, source, self._batch, repeated=repeated)
                    threads = self._run.settings.threads

                    def labelling(_: str) -> None:
                        run_plan(journal, source, self._predictor, self._masker, self._batch, threads, done)
                        self._check_there(number, journal)

                    in_passes(journal, self._batch, self._run.settings.second_pass, labelling)
                    labelled, total = journal.count()
                    record = {
                        "schema": 1,
                        "shard": number,
                        "of": self._plan.shards,
                        "boxes": str(boxes) if self._plan.kind == FILES else f"slice {number}",
                        "mal_trt": __version__,
                        "host": socket.gethostname(),
                        "began": began.isoformat(timespec="seconds"),
                        "seconds": round(time.monotonic() - clock, 3),
                        "records": total,
                        "labelled": labelled,
                        "skipped": journal.skipped(),
                        "model_sha256": self._run.model_sha256,
                        "provider": self._predictor.provider,
                        "device": self._run.device,
                        "batch": self._batch,
                        "given": self._plan.facts,
                        "versions": {"python": platform.python_version(), **library_versions()},
                    }
                    write_shard(journal, file, self._run.model_sha256, record)
            finally:
                journal.delete()
            self._place.send(file, name)
            self._place.put(record_name(name), json.dumps(record, indent=1).encode())
            return _done(number, record)

    def close(self) -> None:
        """Free the model."""
        self._masker.close()
        self._predictor.close()

    def _check_there(self, number: int, journal: Journal) -> None:
        """RunError rather than a shard without masks, if the place of all pictures has gone."""
        images = self._plan.files[number] if self._plan.kind == FILES else self._plan.images
        if any(reason in journal.skipped() for reason in LOST) and gone(images):
            raise RunError(
                f"{images}: is gone or empty (a disk or network folder that dropped?); the shards that are there stay: "
                "bring it back and run again"
            )

    def _opened(self, number: int, folder: Path) -> tuple[Boxes, list[int], ImageSource]:
        """Boxes of a shard, the places of those whose ids are in another one, and its pictures."""
        if self._plan.kind == FILES:
            boxes = Boxes(self._plan.files[number])
            return boxes, [], open_images(boxes.home())
        if self._source is None:
            # The document's names are taken as they are: no worker lists a whole bucket.
            self._source = open_images(self._plan.images, listed=False)
        file = folder / "slice.json"
        repeated = read_slice(self._place, number, file)
        return Boxes(file, "coco"), repeated, self._source


def record_name(name: str) -> str:
    """The run record beside a shard, which holds it too."""
    return name.removesuffix(".parquet") + ".run.json"


def shard_record(place: Place, name: str, file: Path) -> dict[str, Any]:
    """The run record of a shard that is there; file: where the shard may be copied to, should its record be gone."""
    with suppress(ValueError):  # a record that is not whole
        found = json.loads(place.read(record_name(name)) or b"null")
        if isinstance(found, dict) and found.keys() >= {"records", "labelled", "skipped", "seconds", "provider"}:
            return found
    place.fetch(name, file)
    within: dict[str, Any] = read_record(file, f"{place.out}/{name}")["record"]
    return within


def check_versions(driver: dict[str, str]) -> None:
    """InputError if this machine runs another mal-trt than the driver, or libraries that decide what masks come out."""
    here = running_versions()
    differ = [
        f"{name} {here[name]} here, {version} there"
        for name, version in driver.items()
        if name in here and here[name] != version
    ]
    if differ:
        raise InputError(
            f"host {socket.gethostname()} has other versions than the machine that started the run "
            f"({'; '.join(differ)}); install the same on all of them"
        )


def running_versions() -> dict[str, str]:
    """mal-trt's version and those of what decides which masks come out."""
    versions = library_versions()
    return {"mal_trt": __version__, **{name: versions[name] for name in DECIDING if name in versions}}


def _done(number: int, record: dict[str, Any], again: bool = False) -> Done:
    return Done(
        number,
        record["records"],
        record["labelled"],
        record["skipped"],
        0.0 if again else record["seconds"],
        record["provider"],
        again,
    )
