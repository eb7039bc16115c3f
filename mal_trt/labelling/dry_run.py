"""`label --dry-run`: what a run would do and how long it would take, from its real plan and a few real batches of it.

Nothing is written but a plan in the system's folder for temporary files, which is gone when this ends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mal_trt.backends.choice import AUTO
from mal_trt.base.outputs import could_make_folder
from mal_trt.base.processor import usable_cores
from mal_trt.formats.boxes import BoxesLike
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.job import LabelJob, LabelOutputs
from mal_trt.labelling.journal import Journal, Result
from mal_trt.labelling.pipeline import BATCHES_AHEAD, LANES
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.plan_chunk import PlanChunk
from mal_trt.labelling.predictor import Threshold, batch_size
from mal_trt.labelling.read_report import read_report
from mal_trt.labelling.run_record import record_path, skipped_path
from mal_trt.labelling.workers import InProcess, Processes, Settings
from mal_trt.writers.formats import chosen

SECONDS = 3.0  # how long to measure, about
STRETCHES = 4  # parts of the plan that are measured, spread evenly
LEAST_BATCHES = STRETCHES * (LANES + BATCHES_AHEAD)  # fewer would not fill the pipeline


@dataclass(frozen=True)
class LabelForecast:
    """What a label run would do.

    - `total`: records; `boxes` of them would be labelled, on `pictures` pictures; `sizes`: boxes by size class; all of
      `skipped` is left out, by reason.
    - `model`, `precision`, `provider`, `batch`: what runs, and how many boxes at once.
    - `writes`: files and folders that would be made.
    - `measured`: boxes that were labelled to measure, in `measured_seconds`. `failed`: of them, by reason.
    - `seconds`: the labelling of all boxes at that speed; opening the model took `opening_seconds` and planning
      `planning_seconds` besides. Writing comes on top. None: there was nothing to measure.
    - `read`, `notes`: what was read, and what should be known of it.
    """

    total: int
    boxes: int
    pictures: int
    sizes: dict[str, int]
    skipped: dict[str, int]
    model: Path
    precision: str
    provider: str
    batch: int
    writes: tuple[Path, ...]
    measured: int
    measured_seconds: float
    failed: dict[str, int]
    seconds: float | None
    opening_seconds: float
    planning_seconds: float
    read: str
    notes: tuple[str, ...]

    @property
    def boxes_per_second(self) -> float | None:
        """Boxes per second of the measured batches; None if none was measured."""
        return self.measured / self.measured_seconds if self.measured else None


def forecast(
    images: str | Path | None,
    boxes: BoxesLike,
    model: str | Path,
    out: str | Path,
    *,
    batch: int | None = None,
    device: str = "auto",
    backend: str = AUTO,
    crops: str = "auto",
    decode: str = "cpu",
    format: str | Sequence[str] = "coco",
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    slack: float = 0.0,
    second_pass: bool = False,
    overlay: str | Path | None = None,
    image_list: str | Path | None = None,
    threads: int | None = None,
) -> LabelForecast:
    """What `label` would do with these options, and how long it would take. The same InputError as there, before
    anything is measured; RunError if a batch fails."""
    outputs = LabelOutputs(Path(out), chosen(format), None if overlay is None else Path(overlay))
    threads = usable_cores() if threads is None else threads
    settings = Settings(model, threads, threshold, flip, refine, weights, crops, decode, slack, backend, second_pass)
    passes = 2 if second_pass else 1
    job = LabelJob.prepare(images, boxes, settings, device, batch, image_list, outputs)
    for folder in outputs.folders:
        could_make_folder(folder)
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as temporary:
        began = time.monotonic()
        with (
            closing(job.open_workers()) as workers,
            closing(Journal(Path(temporary) / "plan")) as journal,
        ):
            opened = time.monotonic()
            batch = batch_size(batch, workers.opened.most)
            write_plan(journal, {}, job.boxes, image_list, job.source, batch)
            planned = time.monotonic()
            skipped = journal.skipped()
            sample, seconds = _measured(journal, workers, batch)
            sizes = journal.sizes()
            found = read_report(journal)
            count, _ = journal.planned_boxes()
            beside = [skipped_path(outputs.out)] if skipped or sample.failed else []
            return LabelForecast(
                total=journal.count()[1],
                boxes=count,
                pictures=journal.planned_pictures(),
                sizes={size.name.lower(): sizes.get(size, 0) for size in SizeClass},
                skipped=skipped,
                model=Path(job.settings.model),
                precision=workers.opened.precision,
                provider=workers.opened.provider,
                batch=batch,
                writes=(outputs.out, record_path(outputs.out), *beside, *outputs.folders[1:]),
                measured=sample.done,
                measured_seconds=seconds,
                failed=sample.failed,
                seconds=count * passes * seconds / sample.done if sample.done else None,
                opening_seconds=opened - began,
                planning_seconds=planned - opened,
                read=found.line,
                notes=(*workers.notes, *found.notes),
            )


def _measured(journal: Journal, workers: InProcess | Processes, batch: int) -> tuple[_Sample, float]:
    """Some batches of the plan, labelled, and how many seconds that took."""
    sample = _Sample(journal)
    numbers = [number for (number,) in journal.execute("SELECT number FROM batch ORDER BY number")]
    if not numbers:
        return sample, 0.0
    began = time.monotonic()
    sample.choose(numbers[: LANES + 1])
    workers.run(sample, batch, lambda boxes: None)  # the first runs are slower
    each = (time.monotonic() - began) / len(sample.numbers)
    sample.choose(_stretches(numbers, max(LEAST_BATCHES, int(SECONDS / each))))
    began = time.monotonic()
    workers.run(sample, batch, lambda boxes: None)
    return sample, time.monotonic() - began


class _Sample:
    """Some batches of a plan, as a `Plan` whose results are counted and forgotten."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.choose(())

    def choose(self, numbers: Sequence[int]) -> None:
        """Begin again, with these batches."""
        self.numbers, self.done, self.failed = numbers, 0, dict[str, int]()

    def chunks(self) -> Iterator[PlanChunk]:
        marks = ",".join("?" * len(self.numbers))
        rows = self._journal.execute(f"SELECT * FROM box WHERE batch IN ({marks}) ORDER BY place", self.numbers)
        if found := rows.fetchall():
            yield self._journal.chunk(found)

    def add(self, results: Sequence[Result]) -> None:
        self.done += len(results)
        for result in results:
            if result.reason is not None:
                self.failed[result.reason] = self.failed.get(result.reason, 0) + 1


def _stretches(numbers: Sequence[int], most: int) -> Sequence[int]:
    """About `most` of the batches, in a few stretches: neighbours share pictures, as they do in the run."""
    if len(numbers) <= most:
        return numbers
    length = most // STRETCHES
    starts = [place * (len(numbers) - length) // (STRETCHES - 1) for place in range(STRETCHES)]
    return sorted({number for start in starts for number in numbers[start : start + length]})
