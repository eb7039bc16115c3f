"""The measuring of a `benchmark`: models in the network alone and while they label, and how good their masks are.

How one batch is timed is `timing`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mal_trt.backends.choice import on_processor
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.base.memory import read_memory
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import make_frame
from mal_trt.labelling.predictor import Predictor
from mal_trt.labelling.run import label
from mal_trt.measure.agreement import agreement_iou
from mal_trt.measure.benchmark_data import Plan, Samples
from mal_trt.measure.benchmark_subject import Document, Subject, model_facts
from mal_trt.measure.evaluate import evaluate
from mal_trt.measure.power_meter import PowerMeter
from mal_trt.measure.timing import Budget, measure, open_stopwatch

ROOM = 2  # what a batch needs, in times its crops: a copy for the runtime, and the logits


@dataclass(frozen=True)
class Runner:
    """Measures models on the samples. shares: of the size classes in the network alone. options: of `label`.
    meter: of the watts meanwhile, where the machine has one."""

    samples: Samples
    plan: Plan
    source: ImageSource
    folder: Path
    shares: Mapping[SizeClass, float]
    budget: Budget
    options: Document
    meter: PowerMeter | None = None

    def subject(self, model: str | Path, backend: str, batches: Sequence[int]) -> Subject:
        """A model to be measured by a backend, opened once to see that it can be."""
        predictor = self._open(model, backend)
        try:
            return Subject(model, backend, model_facts(model, predictor), batches)
        finally:
            predictor.close()

    def network(self, subject: Subject) -> Iterator[int]:
        """One round of the model's batch sizes in the network alone; yields after each of them."""
        predictor = self._open(subject.model, subject.backend)
        try:
            # Where there is one head and one side of crops, the size of a box makes no difference.
            contract = predictor.contract
            one = contract.head != "dynamic" and contract.sizes is None
            shares = {SizeClass.MEDIUM: 1.0} if one else self.shares
            pool = {side: self._crops(predictor, side) for side in contract.sides}
            for batch in subject.batches:
                if batch not in subject.failed:
                    try:
                        _check_memory(batch, pool)
                        crops = {side: some[np.arange(batch) % len(some)] for side, some in pool.items()}
                        by_size = {size: crops[contract.side(size)] for size in shares}
                        given = by_size if contract.sizes else crops[contract.input_size]
                        stopwatch = open_stopwatch(predictor.backend, given, self.options["weights"])
                        try:
                            began = time.perf_counter()
                            found = measure(stopwatch, shares, self.budget)
                            self._watts(subject, batch, began)
                        finally:
                            stopwatch.close()
                        subject.clock = stopwatch.clock
                        subject.samples.setdefault(batch, []).extend(found)
                    except (MalTrtError, MemoryError) as error:
                        subject.failed[batch] = str(error) or "out of memory"
                yield batch
        finally:
            predictor.close()

    def label(self, subject: Subject, reference: Subject) -> None:
        """One round of labelling all samples; the first also says how good the masks are."""
        if None in subject.failed:
            return
        out = self.folder / "labels.json"
        try:
            began = time.perf_counter()
            given = {**self.options, "backend": subject.backend, "progress": False}
            summary = label(self.samples.images, self.samples.boxes, subject.model, out, **given)
            whole = time.perf_counter() - began
            self._watts(subject, None, began)
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

    def _watts(self, subject: Subject, batch: int | None, began: float) -> None:
        """Keep the mean watts since then; a meter of the GPU says nothing of a model on the processor."""
        if self.meter is None or (self.meter.gpu_only and on_processor(subject.facts["provider"])):
            return
        if (watts := self.meter.since(began)) is not None:
            subject.watts.setdefault(batch, []).append(watts)

    def _judge(self, subject: Subject, reference: Subject, labels: Path) -> None:
        """Quality of the masks just made: against drawn ones, and against the first model's."""
        document = json.loads(labels.read_bytes())
        records = document["annotations"] if isinstance(document, dict) else document
        masks = {record["id"]: record["segmentation"] for record in records if "id" in record}
        if subject is reference:
            subject.masks = masks
        if self.samples.drawn:
            found = evaluate(self.samples.images, self.samples.boxes, labels=labels)
            sizes = {f"miou_{size.name.lower()}": found[f"miou_{size.name.lower()}"] for size in SizeClass}
            subject.quality = {"objects": found["count"], "miou": found["miou"], **sizes}
        shared = [agreement_iou(reference.masks[key], masks[key]) for key in reference.masks.keys() & masks.keys()]
        if shared and subject is not reference:
            subject.quality |= {"iou": sum(shared) / len(shared), "iou_boxes": len(shared)}

    def _open(self, model: str | Path, backend: str) -> Predictor:
        keys = ("threshold", "flip", "refine", "weights", "threads")
        return Predictor(model, self.options["device"], backend=backend, **{key: self.options[key] for key in keys})

    def _crops(self, predictor: Predictor, side: int) -> np.ndarray:
        """Some of the samples' boxes cut with one side S, [n,3,S,S] of the model's type; InputError if no picture can
        be read."""
        contract = predictor.contract
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
                crop = np.zeros((3, side, side), contract.input_dtype)
                predictor.crop(picture[1], make_frame(box, width, height, side, contract.margin_rate), crop)
                crops.append(crop)
        if not crops:
            raise InputError(f"{self.samples.name}: no picture can be read ({problem})")
        return np.stack(crops)


def _check_memory(batch: int, pool: Mapping[int, np.ndarray]) -> None:
    """RunError if a batch of the crops of each side would fill the memory: Linux ends a program for that, without a
    word."""
    wanted = ROOM * batch * sum(crops[0].nbytes for crops in pool.values())
    free = read_memory().available
    if free is not None and wanted > free:
        raise RunError(
            f"it needs about {wanted / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free; "
            "measure a smaller one"
        )
