"""`mal-trt benchmark`: how fast models are, in the network alone and from files to masks, and how good beside it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mal_trt import __version__
from mal_trt.artifacts.manifest import manifest_path, read_manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, MalTrtError
from mal_trt.base.progress import Progress
from mal_trt.formats.images import ImageProblem, ImageSource, open_images
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.predictor import Predictor, Threshold
from mal_trt.labelling.run import label
from mal_trt.measure.agreement import agreement_iou
from mal_trt.measure.benchmark_data import Plan, Samples, choose_samples, plan_samples
from mal_trt.measure.benchmark_report import MIX, write_report
from mal_trt.measure.evaluate import evaluate
from mal_trt.measure.hardware import hardware
from mal_trt.measure.timing import Budget, Sample, figures, measure, open_stopwatch

SIZES = (*(size.name.lower() for size in SizeClass), MIX)

Document = dict[str, Any]


def benchmark(
    models: Sequence[str | Path],
    images: str | Path | None = None,
    boxes: str | Path | None = None,
    annotations: str | Path | None = None,
    *,
    batches: Sequence[int] = (1, 8, 16, 32),
    size: str = MIX,
    warm_up: int = 10,
    runs: int | None = None,
    seconds: float = 2.0,
    rounds: int = 3,
    end_to_end: bool = True,
    label_batch: int | None = None,
    count: int | None = None,
    device: str = "auto",
    crops: str = "auto",
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
    csv_out: str | Path | None = None,
    plot_out: str | Path | None = None,
    command: str = "",
    told: Callable[[Document], None] = lambda result: None,
) -> Document:
    """Time models on one device, as the dict `mal-trt benchmark --json` writes.

    models: ONNX files, engines or "bundled"; the first is the reference. images, boxes, annotations, count: see
    `choose_samples`. batches: sizes tried in the network alone. size: whose boxes' mask head runs there, "small",
    "medium", "large", or "mix": in the proportions of the boxes. warm_up, runs, seconds: see `Budget`; of each round.
    rounds: how often all is measured in turn, since a machine's speed drifts. end_to_end: also label the samples from
    their files, which gives the quality too. label_batch and the options after count: those of `label`.
    json_out, csv_out: written after every figure, so that an interrupted run leaves what it has; plot_out: at the end,
    .png or .svg. command: recorded. told: called with the result so far after every figure.

    Keys: `machine` (see `hardware`), `data`, `models`. Each model: what it is; `network`, one row for each batch with
    the clock, runs, latencies in ms and boxes_per_s; `label`: boxes_per_s and pictures_per_s from decoding to run
    lengths (median of the rounds), seconds of each round and of the whole calls; `quality`: miou, also by size,
    against drawn masks, and iou, the masks' mean IoU with the first model's. What fails has `error` instead of figures,
    and the rest goes on. InputError before any timing if something given cannot be used.
    """
    _check(models, batches, size, rounds, warm_up, runs, seconds)
    _check_files(json_out, csv_out, plot_out)
    if plot_out is not None and not (end_to_end and (annotations is not None or len(models) > 1)):
        raise InputError(
            "--plot sets speed against quality: give --annotations or a second model, and label end to end"
        )
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as name:
        folder = Path(name)
        samples = choose_samples(images, boxes, annotations, count, folder)
        source = open_images(samples.images)
        plan = plan_samples(samples, source, folder)
        shares = plan.shares if size == MIX else {SizeClass[size.upper()]: 1.0}
        label_options: Document = {
            **{"batch": label_batch, "device": device, "crops": crops, "threads": threads},
            **{"threshold": threshold, "flip": flip, "refine": refine, "weights": weights},
        }
        runner = _Runner(samples, plan, source, folder, shares, Budget(warm_up, runs, seconds), label_options)
        subjects = [runner.subject(model, batches) for model in models]
        result: Document = {
            "mal_trt": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "complete": False,
            "machine": hardware(),
            "data": {
                "name": samples.name,
                "pictures": plan.pictures,
                "boxes": plan.boxes,
                "size_shares": {size.name.lower(): round(share, 4) for size, share in plan.shares.items()},
            },
            "options": {
                **{"size": size, "warm_up": warm_up, "runs": runs, "seconds": seconds, "rounds": rounds},
                "label": label_options,
            },
            "models": [],
        }

        def save(plot: bool = False) -> None:
            result["models"] = [subject.summary() for subject in subjects]
            told(result)
            write_report(result, json_out, csv_out, plot_out if plot else None)

        steps = rounds * len(subjects) * (len(batches) + end_to_end)
        with Progress("benchmarking", steps, unit="figures", show=progress) as bar:
            for _ in range(rounds):
                for subject in subjects:
                    for _ in runner.network(subject):
                        bar.advance(1)
                        save()
                    if end_to_end:
                        runner.label(subject, subjects[0])
                        bar.advance(1)
                        save()
        result["complete"] = True
        save(plot=True)
    return result


def _check(
    models: Sequence[str | Path],
    batches: Sequence[int],
    size: str,
    rounds: int,
    warm_up: int,
    runs: int | None,
    seconds: float,
) -> None:
    if not models:
        raise InputError("no model to measure; give --model FILE, or --model bundled")
    if size not in SIZES:
        raise InputError(f"size {size!r}: expected one of {', '.join(SIZES)}")
    if not batches:
        raise InputError("no batch size to measure; give --batch 1,8,16")
    numbers = (*(("batch", n) for n in batches), ("rounds", rounds), ("runs", 1 if runs is None else runs))
    for name, value in numbers:
        if value < 1:
            raise InputError(f"{name} {value}: expected 1 or more")
    if warm_up < 0 or seconds < 0:
        raise InputError(f"warm-up {warm_up}, seconds {seconds:g}: expected 0 or more")


def _check_files(json_out: str | Path | None, csv_out: str | Path | None, plot_out: str | Path | None) -> None:
    for path in (json_out, csv_out, plot_out):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise InputError(f"{path}: its folder does not exist; the result could not be written there")
    if plot_out is not None and Path(plot_out).suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{plot_out}: a plot is a .png or an .svg file")


@dataclass
class _Subject:
    """A model and what was measured of it. facts: what it is. failed: batch, or None for labelling, -> why."""

    model: str | Path
    facts: Document
    batches: Sequence[int]
    clock: str = ""
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    rounds: list[Document] = field(default_factory=list)
    quality: Document = field(default_factory=dict)
    masks: dict[Any, RLE] = field(default_factory=dict)
    failed: dict[int | None, str] = field(default_factory=dict)

    def summary(self) -> Document:
        """JSON-ready: the facts, and all figures so far."""
        network = []
        for batch in self.batches:
            if batch in self.failed:
                network.append({"batch": batch, "error": self.failed[batch]})
            elif batch in self.samples:
                row = {"batch": batch, "clock": self.clock, **figures(self.samples[batch], batch)}
                if self.facts["head"] != "dynamic":
                    del row["runs_by_size"]
                network.append(row)
        return {**self.facts, "network": network, "label": self._label(), "quality": self.quality or None}

    def _label(self) -> Document | None:
        if None in self.failed:
            return {"error": self.failed[None]}
        if not self.rounds:
            return None
        first, seconds = self.rounds[0], median(done["seconds"] for done in self.rounds)
        return {
            "clock": "wall clock",
            "boxes": first["boxes"],
            "pictures": first["pictures"],
            "skipped": first["skipped"],
            "boxes_per_s": first["boxes"] / seconds,
            "pictures_per_s": first["pictures"] / seconds,
            "seconds": [done["seconds"] for done in self.rounds],
            "whole_seconds": [done["whole_seconds"] for done in self.rounds],
        }


@dataclass(frozen=True)
class _Runner:
    """Measures models on the samples. shares: of the size classes in the network alone. options: of `label`."""

    samples: Samples
    plan: Plan
    source: ImageSource
    folder: Path
    shares: Mapping[SizeClass, float]
    budget: Budget
    options: Document

    def subject(self, model: str | Path, batches: Sequence[int]) -> _Subject:
        """A model to be measured, opened once to see that it can be."""
        path = resolve_model(model)
        predictor = self._open(model)
        try:
            facts = {
                "model": str(model),
                "sha256": file_sha256(path),
                "bytes": path.stat().st_size,
                "precision": predictor.contract.precision,
                "provider": predictor.provider,
                "input_size": predictor.contract.input_size,
                "head": predictor.contract.head,
                "refine": predictor.refine,
                **_engine_facts(path),
            }
        finally:
            predictor.close()
        return _Subject(model, facts, batches)

    def network(self, subject: _Subject) -> Any:
        """One round of the model's batch sizes in the network alone; yields after each of them."""
        predictor = self._open(subject.model)
        try:
            pool = self._crops(predictor)
            # Where there is one head, the size of a box makes no difference.
            shares = self.shares if predictor.contract.head == "dynamic" else {SizeClass.MEDIUM: 1.0}
            for batch in subject.batches:
                if batch not in subject.failed:
                    try:
                        stopwatch = open_stopwatch(
                            predictor.backend, pool[np.arange(batch) % len(pool)], self.options["weights"]
                        )
                        try:
                            found = measure(stopwatch, shares, self.budget)
                        finally:
                            stopwatch.close()
                        subject.clock = stopwatch.clock
                        subject.samples.setdefault(batch, []).extend(found)
                    except (MalTrtError, MemoryError) as error:
                        subject.failed[batch] = str(error) or "out of memory"
                yield batch
        finally:
            predictor.close()

    def label(self, subject: _Subject, reference: _Subject) -> None:
        """One round of labelling all samples; the first also says how good the masks are."""
        if None in subject.failed:
            return
        out = self.folder / "labels.json"
        try:
            began = time.perf_counter()
            summary = label(self.samples.images, self.samples.boxes, subject.model, out, progress=False, **self.options)
            whole = time.perf_counter() - began
            if not summary.labelled:
                raise InputError(f"no box was labelled ({'; '.join(summary.skipped)})")
            if not subject.rounds:
                self._judge(subject, reference, out)
        except (MalTrtError, MemoryError) as error:
            subject.failed[None] = str(error) or "out of memory"
            return
        finally:
            for left in self.folder.glob("labels.*"):
                left.unlink()
        subject.rounds.append(
            {
                "boxes": summary.labelled,
                "pictures": self.plan.pictures,
                "skipped": sum(summary.skipped.values()),
                "seconds": summary.seconds,
                "whole_seconds": whole,
            }
        )

    def _judge(self, subject: _Subject, reference: _Subject, labels: Path) -> None:
        """Quality of the masks just made: against drawn ones, and against the first model's."""
        document = json.loads(labels.read_bytes())
        records = document["annotations"] if isinstance(document, dict) else document
        masks = {record["id"]: record["segmentation"] for record in records if "id" in record}
        if subject is reference:
            subject.masks = masks
        if self.samples.drawn:
            found = evaluate(None, self.samples.boxes, labels=labels)
            sizes = {f"miou_{size.name.lower()}": found[f"miou_{size.name.lower()}"] for size in SizeClass}
            subject.quality = {"objects": found["count"], "miou": found["miou"], **sizes}
        shared = [agreement_iou(reference.masks[key], masks[key]) for key in reference.masks.keys() & masks.keys()]
        if shared and subject is not reference:
            subject.quality |= {"iou": sum(shared) / len(shared), "iou_boxes": len(shared)}

    def _open(self, model: str | Path) -> Predictor:
        keys = ("threshold", "flip", "refine", "weights", "threads")
        return Predictor(model, self.options["device"], **{key: self.options[key] for key in keys})

    def _crops(self, predictor: Predictor) -> np.ndarray:
        """Some of the samples' crops, [n,3,S,S] of the model's type; InputError if no picture can be read."""
        crops: list[np.ndarray] = []
        picture: tuple[str, np.ndarray | None] = "", None
        problem = ""
        for name, width, height, box in self.plan.crops:
            if picture[0] != name:
                try:
                    picture = name, self.source.load(name, (width, height))
                except ImageProblem as error:
                    picture, problem = (name, None), f"{name}: {error}"
            if picture[1] is not None:
                crop = predictor.batch(1)[0]
                predictor.crop(picture[1], predictor.frame(box, width, height), crop)
                crops.append(crop)
        if not crops:
            raise InputError(f"{self.samples.name}: no picture can be read ({problem})")
        return np.stack(crops)


def _engine_facts(path: Path) -> Document:
    """What an engine's manifest says about how it was built; nothing for an ONNX file."""
    if not manifest_path(path).is_file():
        return {}
    manifest = read_manifest(path)
    return {
        "engine": {
            "flavor": manifest.flavor,
            "version": manifest.version,
            "gpu": manifest.gpu,
            "compute_capabilities": list(manifest.compute_capabilities),
            "precision": manifest.precision,
            "flags": list(manifest.flags),
            "opt_level": manifest.opt_level,
            "onnx_sha256": manifest.onnx_sha256,
            "parity": manifest.parity,
        }
    }
