"""`mal-trt label --shard-pictures` and `--ray`: masks for every box, in shards that are each written once."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal_trt.backends.choice import AUTO
from mal_trt.base.errors import InputError, NothingDone, RunError
from mal_trt.base.processor import usable_cores
from mal_trt.base.progress import Progress
from mal_trt.base.version import __version__
from mal_trt.distributed.place import Place
from mal_trt.distributed.plan import Plan, check_facts, make_plan, read_plan
from mal_trt.distributed.shard_file import pyarrow_module
from mal_trt.distributed.shard_labeler import Done, ShardLabeler, ShardRun, shard_record
from mal_trt.formats.boxes import BoxesLike
from mal_trt.labelling.job import LabelJob
from mal_trt.labelling.predictor import Threshold
from mal_trt.labelling.summary import most_missing
from mal_trt.labelling.workers import Settings

PICTURES = 1000  # of a shard, unless another number is given


@dataclass(frozen=True)
class Sharded:
    """What a sharded run did.

    - `total`: records; `labelled` and all of `skipped` make it up. `skipped`: records by reason.
    - `shards`: how many there are. `before`: how many of them an earlier run had made.
    - `seconds`: how long this run took. `boxes`: how many boxes it labelled. `provider`: what ran the model.
    """

    total: int
    labelled: int
    skipped: dict[str, int]
    shards: int
    before: int
    seconds: float
    boxes: int
    provider: str
    out: str

    @property
    def boxes_per_second(self) -> float:
        """Boxes labelled by this run, per second."""
        return self.boxes / self.seconds if self.seconds else 0.0

    @property
    def warning(self) -> str:
        """See `Summary.warning`."""
        return most_missing(self.total, self.skipped, "have NO mask")


def label_shards(
    images: str | Path | None,
    boxes: BoxesLike,
    model: str | Path = "bundled",
    out: str | Path = "shards",
    *,
    shard_pictures: int = PICTURES,
    ray: str | None = None,
    workers: int | None = None,
    gpus: float = 0.0,
    batch: int | None = None,
    device: str = "auto",
    backend: str = AUTO,
    crops: str = "auto",
    decode: str = "cpu",
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    slack: float = 0.0,
    second_pass: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> Sharded:
    """Draw a mask for every box, into shards: Parquet files `part-000000.parquet`, ... at `out`.

    - `images`, `boxes`, `model` and further ones: as for `label`. tar and Parquet files that a pattern names and that
      hold pictures and boxes become a shard each.
    - `out`: a folder, or a URL. A run that is started again makes only what is missing.
    - `shard_pictures`: pictures of a shard, where boxes come from a document.
    - `ray`: None labels in this process; "local" on a Ray cluster of this machine, "auto" on the one that this machine
      belongs to, or a Ray address.
    - `workers`: processes on Ray. None: as many as the cluster has room for. `gpus`: of each, also a part of one.
    - `threads`: of each process.

    InputError before any work if something cannot be used, if `out` holds another run's shards, or if another run is
    writing there. RunError if the run fails; shards that are there stay.
    """
    if shard_pictures < 1:
        raise InputError(f"shard_pictures {shard_pictures}: expected at least 1")
    if isinstance(device, str) and "," in device:
        raise InputError(
            f"device {device}: one process makes shards on one device; for several give --ray local --device cuda "
            "--gpus-per-worker 1"
        )
    pyarrow_module()
    if threads is None:
        threads = usable_cores() if ray is None else 1
    settings = Settings(model, threads, threshold, flip, refine, weights, crops, decode, slack, backend, second_pass)
    job = LabelJob.prepare(images, boxes, settings, device, batch)
    facts = {
        "mal-trt": __version__,
        **job.facts(),
        "shard pictures": str(shard_pictures),
        **({"backend": backend} if backend != AUTO else {}),
    }
    place = Place(out)
    began = time.monotonic()
    with place.held():
        plan = read_plan(place)
        if plan is None:
            if any(name.startswith("part-") for name in place.names()):
                raise InputError(f"{place.out}: holds shards without the plan of a run; choose another --out")
            plan = make_plan(place, job, shard_pictures, facts)
        else:
            check_facts(place, plan, facts)
        run = ShardRun(plan, place.out, job.settings, device, batch, facts["model"])
        missing = plan.missing(place.names())
        with Progress("labelling", plan.shards, plan.shards - len(missing), unit="shards", show=progress) as bar:
            made: dict[int, Done] = {}
            for one in _labelled(run, missing, ray, workers, gpus):
                made[one.number] = one
                bar.advance(1)
        place.tidy()
        return _summary(plan, place, missing, made, time.monotonic() - began)


def _labelled(
    run: ShardRun, missing: Sequence[int], ray: str | None, workers: int | None, gpus: float
) -> Iterator[Done]:
    if not missing:
        return
    if ray is not None:
        from mal_trt.distributed.ray_run import run_on_ray

        yield from run_on_ray(ray, run, missing, workers, gpus)
        return
    with closing(ShardLabeler(run)) as labeler:
        for number in missing:
            yield labeler.label(number)


def _summary(plan: Plan, place: Place, missing: Sequence[int], made: dict[int, Done], seconds: float) -> Sharded:
    still = plan.missing(place.names())
    if still:
        raise RunError(f"{place.out}: {len(still)} shards are not there after the run; run again")
    skipped: Counter[str] = Counter()
    total = labelled = 0
    provider = ""
    with tempfile.TemporaryDirectory(prefix="mal-trt-shard-") as folder:
        for number in range(plan.shards):
            if number in made:
                one = made[number]
                figures: dict[str, Any] = {"records": one.total, "labelled": one.labelled, "skipped": one.skipped}
                provider = one.provider
            else:
                figures = shard_record(place, plan.name(number), Path(folder) / "shard")
            total += figures["records"]
            labelled += figures["labelled"]
            skipped.update(figures["skipped"])
    if total and not labelled:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in skipped.most_common(3))
        raise NothingDone(f"{place.out}: not one of {total:,} boxes could be labelled ({reasons})")
    return Sharded(
        total=total,
        labelled=labelled,
        skipped=dict(skipped.most_common()),
        shards=plan.shards,
        before=plan.shards - len(missing),
        seconds=seconds,
        boxes=sum(one.labelled for one in made.values() if not one.again),
        provider=provider,
        out=place.out,
    )
