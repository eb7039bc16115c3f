"""`calibrate --dry-run`: what a calibration would do, and how long it would take, measured on a few real crops."""

from __future__ import annotations

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import InputError
from mal_trt.calibration.calibrate import PreparedCalibration, prepare
from mal_trt.calibration.convert import half_of
from mal_trt.calibration.gate import Check
from mal_trt.calibration.output import report_path
from mal_trt.calibration.sample import CropBatch, Losses, Spot, crops
from mal_trt.calibration.settings import CalibrationSettings
from mal_trt.calibration.targets import spectra, target_of
from mal_trt.formats.boxes import Source

BATCHES = 4  # that are measured


@dataclass(frozen=True)
class CalibrationForecast:
    """What a calibration would do.

    - `model`, `precision`, `to`: the file, its precision, and the one that it would get. `layers`: how many layers are
      tried, by group.
    - `crops`: how many crops of each size class the ranges come from; `check_crops`: how many the result is checked on;
      `pictures`: how many pictures these crops are from.
    - `writes`: files that would be written.
    - `measured`: crops that were used to measure, in `measured_seconds`; `unreadable`: boxes whose picture gave none.
    - `seconds_least`, `seconds_most`: for all of it. How many sets of layers must be tried is known only afterwards.
    - `notes`: what should be known.
    """

    model: Path
    precision: str
    to: str
    layers: dict[str, int]
    crops: dict[str, int]
    check_crops: dict[str, int]
    pictures: int
    writes: tuple[Path, ...]
    measured: int
    measured_seconds: float
    unreadable: int
    seconds_least: float
    seconds_most: float
    notes: tuple[str, ...]


def forecast(
    model: Path | str,
    out: Path | str,
    sources: Sequence[Source],
    settings: CalibrationSettings | None = None,
    *,
    annotations: Source | None = None,
    cache: Path | None = None,
) -> CalibrationForecast:
    """What `calibrate` would do with these options, and how long it would take. The same InputError as there before
    anything is measured; nothing is written."""
    out = Path(out)
    prepared = prepare(model, out, sources, settings or CalibrationSettings(), annotations, cache)
    start = time.monotonic()
    losses = Losses()
    used = prepared.settings.batch * BATCHES
    batches, cut_each = _cut(prepared, used, losses)
    least, most = _seconds(prepared, batches, cut_each)
    notes = list(prepared.warnings)
    if cache is not None and cache.exists():
        notes.append(f"{cache}: holds measurements that are not made again; the estimate leaves that out")
    return CalibrationForecast(
        model=prepared.source,
        precision=prepared.contract.precision,
        to=prepared.settings.precision,
        layers=dict(Counter(layer.group for layer in prepared.chosen)),
        crops=_sizes(prepared.learn),
        check_crops=_sizes(prepared.held),
        pictures=len({(spot.images, spot.picture) for spot in prepared.learn + prepared.held}),
        writes=(out, parity_path(out), report_path(out), *([cache] if cache is not None else [])),
        measured=sum(len(batch.spots) for batch in batches),
        measured_seconds=time.monotonic() - start,
        unreadable=losses.unreadable,
        seconds_least=least,
        seconds_most=most,
        notes=tuple(notes),
    )


def _cut(prepared: PreparedCalibration, count: int, losses: Losses) -> tuple[list[CropBatch], float]:
    """A few crops that follow each other in the draw, and the seconds that each took."""
    start = time.monotonic()
    batches = list(crops(prepared.learn[:count], prepared.contract, prepared.settings.batch, losses))
    if not batches:
        raise InputError(f"none of the first {count} boxes could be read ({'; '.join(losses.reasons[:3])})")
    return batches, (time.monotonic() - start) / count


def _seconds(prepared: PreparedCalibration, batches: list[CropBatch], cut_each: float) -> tuple[float, float]:
    """The whole calibration, at the speed of a few batches: if the first set of layers passes, and if many are
    tried."""
    settings = prepared.settings
    marks = [time.monotonic()]
    found = spectra(
        prepared.graph, prepared.contract, prepared.chosen, batches, settings, lambda _: marks.append(time.monotonic())
    )
    seen = sum(len(batch.spots) for batch in batches[1:])  # the first batch opens the network
    each = cut_each + ((marks[-1] - marks[1]) / seen if seen else (marks[-1] - marks[0]) / len(batches[0].spots))
    ranges = (marks[1] - marks[0]) + each * len(prepared.learn) * (2 if settings.smooth else 1)

    target = target_of(prepared.graph, prepared.contract, prepared.chosen, found, settings)
    halved = time.monotonic()
    typed = prepared.graph
    if prepared.contract.precision == "fp32" and target.rest == "fp16":
        typed, _ = half_of(prepared.graph, prepared.contract, batches, settings.threads)
    halved = time.monotonic() - halved
    every, one = (
        _judging(prepared, target.quantize(typed, chosen), batches)
        for chosen in (prepared.chosen, prepared.chosen[len(prepared.chosen) // 2 :][:1])
    )
    tried = settings.sensitivity_crops or CalibrationSettings.sensitivity_crops
    check_once, alone = every(len(prepared.held)), len(prepared.chosen) * one(min(tried, len(prepared.held)))
    searches = math.ceil(math.log2(max(2, len(prepared.chosen))))
    base = ranges + halved + cut_each * len(prepared.held)
    least = base + check_once + (alone if settings.sensitivity_crops else 0)
    return least, base + check_once * (1 + searches) + alone


def _judging(prepared: PreparedCalibration, model: onnx.ModelProto, batches: list[CropBatch]) -> Callable[[int], float]:
    """Seconds that judging a model like this one takes, by the number of crops: a part for the model, and a part for
    each crop."""
    took = []
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
        for part in (batches[:1], batches):
            check = Check(prepared.source, part, Path(folder) / "trial.onnx", prepared.settings.threads)
            start = time.monotonic()
            check.agreement(model)
            took.append((check.boxes, time.monotonic() - start))
    (few, short), (many, long) = took
    each = max(0.0, (long - short) / (many - few)) if many > few else long / many
    fixed = max(0.0, long - each * many)
    return lambda crops: fixed + each * crops


def _sizes(spots: Sequence[Spot]) -> dict[str, int]:
    count = Counter(spot.size for spot in spots)
    return {size.name.lower(): count[size] for size in sorted(count)}
