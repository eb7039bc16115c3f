"""`mal-trt compare`: how far models are from the first of them, on real boxes, along the very path that labels."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.base.errors import InputError, NanLogits
from mal_trt.base.progress import Progress
from mal_trt.formats.images import ImageProblem, ImageSource, open_images
from mal_trt.formats.segmentations import to_rle
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.labelling.journal import PAGE, Journal
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor, Threshold
from mal_trt.measure.agreement import Agreement, Answer, BoxId, Truth, answers
from mal_trt.measure.evaluate import write_json

CUT = 8  # boxes of one picture cut in one go
BATCHES_AHEAD = 2  # crops waiting for the networks, in batches' worth of boxes


def compare(
    models: Sequence[str | Path],
    images: str | Path,
    annotations: str | Path | None = None,
    boxes: str | Path | None = None,
    *,
    count: int | None = None,
    batch: int = 16,
    device: str = "auto",
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
) -> dict[str, Any]:
    """Agreement of models with the first of them, as the dict `mal-trt compare --json` writes.

    models: two or more ONNX files, or "bundled". annotations: boxes with drawn masks, or boxes: boxes alone, either a
    file or folder that `label` takes. count: compare on so many boxes, spread evenly over the document; None is all.
    threshold, refine: the same for all models; None is each model's own. Logits are compared as the network gives
    them, masks as `label` makes them of those. The other options are those of `label`; json_out: a file for the result.

    Keys: `reference` describes the first model, `models` each other one with the figures of
    `agreement.Agreement.summary`; `boxes` were compared, `drawn_masks` of them had a drawn mask; `skipped`
    counts records that could not be used, `skipped_reasons` says why. InputError if there is nothing to compare.
    """
    document = _document(annotations, boxes)
    if isinstance(threshold, str):
        raise InputError(f"threshold {threshold}: models are compared at the same thresholds; give numbers")
    if len(models) < 2:
        raise InputError(f"compare needs two models or more, given {len(models)}: {', '.join(map(str, models))}")
    for name, value in (("batch", batch), ("count", count)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: expected 1 or more")
    if json_out is not None and not Path(json_out).absolute().parent.is_dir():
        raise InputError(f"{json_out}: its folder does not exist; the result could not be written there")
    source = open_images(images)
    predictors: list[Predictor] = []
    try:
        for model in models:
            predictors.append(Predictor(model, device, threshold=threshold, flip=flip, refine=refine, threads=threads))
        with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
            journal = Journal(Path(folder) / "plan")
            try:
                write_plan(journal, {}, document, None, source, batch)
                plan = _Plan(journal, count, drawn=annotations is not None)
                if not plan.boxes:
                    raise InputError(f"{document}: no box to compare on ({_reasons(journal.skipped())})")
                run = _Run(predictors, batch)
                with Progress("comparing", plan.boxes, show=progress) as bar:
                    run.all(plan, source, bar.advance)
                skipped = Counter(journal.skipped()) + run.skipped
            finally:
                journal.close()
        facts = [_facts(model, predictor) for model, predictor in zip(models, predictors, strict=True)]
    finally:
        for predictor in predictors:
            predictor.close()
    if not run.boxes:
        raise InputError(f"{document}: no box to compare on ({_reasons(skipped)})")
    if annotations is not None and not run.drawn:
        raise InputError(f"{document}: no box has a drawn mask; give it as boxes (--boxes) to compare without")
    result = {
        "reference": facts[0],
        "models": [{**fact, **pairs.summary()} for fact, pairs in zip(facts[1:], run.agreements, strict=True)],
        "boxes": run.boxes,
        "drawn_masks": run.drawn,
        "skipped": sum(skipped.values()),
        "skipped_reasons": dict(skipped),
        "document": str(document),
        "flip": flip,
    }
    if json_out is not None:
        write_json(result, Path(json_out))
    return result


def print_report(result: dict[str, Any]) -> None:
    """The result of `compare` as a table on the screen."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold", min_width=9)
    for title in ("boxes", "error %", "max %", "IoU", "worst", "<.9 %", "mIoU %", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    first = result["models"][0]
    name = escape(Path(result["reference"]["model"]).name)
    table.add_row(name, str(first["boxes"]), *["-"] * 5, *_scores(first["miou"], "all", "reference"), style="bold")
    for model in result["models"]:
        table.add_section()
        table.add_row(escape(Path(model["model"]).name), *_cells(model), *_scores(model["miou"], "all"), style="bold")
        for size, figures in model["by_size"].items():
            if figures["boxes"]:
                table.add_row(f"  {size}", *_cells(figures), *_scores(model["miou"], size))
    console.print(table)
    said = [
        "error, max: of the logits, in % of the range of the first model's; IoU: of the masks with the first model's"
    ]
    said += [_not_finite(result["reference"]["model"], m["reference_not_finite"]) for m in result["models"][:1]]
    for model in result["models"]:
        said.append(_not_finite(model["model"], model["not_finite"]))
        if model["logit_error"] is None and model["not_finite"]["count"] < model["boxes"]:
            said.append(f"{model['model']}: its logits cannot be compared with the reference's, only its masks")
    if result["skipped"]:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in result["skipped_reasons"].items())
        said.append(f"{result['skipped']} boxes skipped ({reasons})")
    console.print("\n".join(filter(None, said)), highlight=False, markup=False, soft_wrap=True)


def _cells(figures: dict[str, Any]) -> list[str]:
    error, iou = figures["logit_error"], figures["mask_iou"]
    errors = ["-"] * 2 if error is None else [f"{100 * error[f'relative_{key}']:.3f}" for key in ("mean", "max")]
    masks = ["-"] * 3 if iou is None else [f"{iou['mean']:.4f}", f"{iou['worst']:.3f}", f"{100 * iou['below_0.9']:.1f}"]
    return [str(figures["boxes"]), *errors, *masks]


def _scores(scores: dict[str, Any] | None, size: str, which: str = "other") -> list[str]:
    if scores is None or scores[which][size] is None:
        return ["-", "-"]
    change = "-" if which == "reference" else f"{100 * scores['difference'][size]:+.2f}"
    return [f"{100 * scores[which][size]:.2f}", change]


def _not_finite(model: str, found: dict[str, Any]) -> str:
    """The boxes where a model gave NaN or infinite logits; empty if there are none."""
    if not found["count"]:
        return ""
    more = ", ..." if found["count"] > len(found["boxes"]) else ""
    return f"{model}: NaN or infinite logits for {found['count']} boxes ({', '.join(map(str, found['boxes']))}{more})"


def _document(annotations: str | Path | None, boxes: str | Path | None) -> str | Path:
    if annotations is not None and boxes is None:
        return annotations
    if boxes is not None and annotations is None:
        return boxes
    raise InputError("compare needs either drawn masks (--annotations) or boxes (--boxes), one of the two")


def _facts(model: str | Path, predictor: Predictor) -> dict[str, Any]:
    return {
        "model": str(model),
        "precision": predictor.contract.precision,
        "provider": predictor.provider,
        "input_size": predictor.contract.input_size,
        "thresholds": list(predictor.thresholds),
        "refine": predictor.refine,
    }


def _reasons(skipped: dict[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in Counter(skipped).most_common(3)) or "it is empty"


@dataclass(frozen=True)
class _Box:
    """A planned box. xyxy: clipped, picture pixels. record: the JSON of its annotation."""

    id: BoxId
    file_name: str
    width: int
    height: int
    xyxy: tuple[float, float, float, float]
    record: str

    def truth(self) -> Truth | None:
        """The drawn mask, by the rules of `evaluate`; None if the record has none that can be used."""
        record = json.loads(self.record)
        try:
            rle = to_rle(record.get("segmentation"), self.height, self.width)
        except ValueError:
            return None
        if not isinstance(record.get("category_id"), (int, str)):
            return None
        return Truth(rle, record["category_id"], record["bbox"][2] * record["bbox"][3])


class _Plan:
    """The boxes to compare on, in the order of the pictures. boxes: how many."""

    def __init__(self, journal: Journal, count: int | None, drawn: bool) -> None:
        self.drawn = drawn
        self._journal = journal
        self._planned, _ = journal.planned_boxes()
        self.boxes = self._planned if count is None else min(count, self._planned)

    def pieces(self) -> Iterator[list[_Box]]:
        """Up to CUT boxes of one picture at a time."""
        for _, boxes in groupby(self._rows(), lambda box: box.file_name):
            piece: list[_Box] = []
            for box in boxes:
                piece.append(box)
                if len(piece) == CUT:
                    yield piece
                    piece = []
            if piece:
                yield piece

    def _rows(self) -> Iterator[_Box]:
        place = -1
        while rows := self._journal.execute(
            "SELECT place, annotation.id, annotation.seq, file_name, width, height, x0, y0, x1, y1, annotation.record "
            "FROM box JOIN image ON image.position = box.image JOIN annotation ON annotation.seq = box.seq "
            "WHERE place > ? AND (place + 1) * ? / ? > place * ? / ? ORDER BY place LIMIT ?",
            (place, *(self.boxes, self._planned) * 2, PAGE),
        ).fetchall():
            for _, key, seq, name, width, height, x0, y0, x1, y1, record in rows:
                yield _Box(f"record {seq}" if key is None else key, name, width, height, (x0, y0, x1, y1), record)
            place = rows[-1][0]


@dataclass(frozen=True)
class _Crop:
    """A box with its crop [3,S,S] for every kind of crop the models take."""

    box: _Box
    pixels: list[np.ndarray]
    frames: list[Frame]


class _Run:
    """Runs every model on every box. boxes: compared so far; drawn: of them with a drawn mask."""

    def __init__(self, predictors: Sequence[Predictor], batch: int) -> None:
        self.agreements = [Agreement() for _ in predictors[1:]]
        self.boxes = self.drawn = 0
        self.skipped: Counter[str] = Counter()
        self._predictors = predictors
        self._batch = batch
        kinds = [(p.contract.input_size, p.contract.margin_rate, p.contract.input_dtype) for p in predictors]
        self._cutters = [predictors[kinds.index(kind)] for kind in dict.fromkeys(kinds)]
        self._kind = [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]  # of each model
        self._picture: tuple[str, np.ndarray | ImageProblem] | None = None  # the cutting thread's

    def all(self, plan: _Plan, source: ImageSource, done: Callable[[int], None]) -> None:
        """Compare on all boxes of a plan; pictures are decoded and cut in a thread beside the networks."""
        filling: dict[SizeClass, list[_Crop]] = {size: [] for size in SizeClass}
        ahead: deque[tuple[list[_Box], Future[list[_Crop] | ImageProblem]]] = deque()

        def take() -> None:
            piece, future = ahead.popleft()
            crops = future.result()
            if isinstance(crops, ImageProblem):
                self.skipped[crops.reason] += len(piece)
                done(len(piece))
                return
            for crop in crops:
                group = filling[crop.frames[0].size_class]
                group.append(crop)
                if len(group) == self._batch:
                    self._compare(group, plan.drawn)
                    done(len(group))
                    group.clear()

        with ThreadPoolExecutor(1, "mal-trt") as pool:
            try:
                for piece in plan.pieces():
                    ahead.append((piece, pool.submit(self._cut, source, piece)))
                    while sum(len(boxes) for boxes, _ in ahead) > BATCHES_AHEAD * self._batch:
                        take()
                while ahead:
                    take()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for group in filling.values():
            if group:
                self._compare(group, plan.drawn)
                done(len(group))

    def _cut(self, source: ImageSource, piece: list[_Box]) -> list[_Crop] | ImageProblem:
        first = piece[0]
        if self._picture is None or self._picture[0] != first.file_name:
            try:
                self._picture = first.file_name, source.load(first.file_name, (first.width, first.height))
            except ImageProblem as problem:
                self._picture = first.file_name, problem
        picture = self._picture[1]
        return picture if isinstance(picture, ImageProblem) else [self._crop(picture, box) for box in piece]

    def _crop(self, picture: np.ndarray, box: _Box) -> _Crop:
        crop = _Crop(box, [], [])
        for predictor in self._cutters:
            frame = predictor.frame(box.xyxy, box.width, box.height)
            pixels = predictor.batch(1)[0]
            predictor.crop(picture, frame, pixels)
            crop.pixels.append(pixels)
            crop.frames.append(frame)
        return crop

    def _compare(self, crops: list[_Crop], drawn: bool) -> None:
        truths = [crop.box.truth() for crop in crops] if drawn else None
        ids = [crop.box.id for crop in crops]
        given: list[list[Answer]] = []
        for predictor, kind in zip(self._predictors, self._kind, strict=True):
            frames = [crop.frames[kind] for crop in crops]
            pixels = np.stack([crop.pixels[kind] for crop in crops])
            logits = _logits(predictor, pixels, frames[0].size_class)
            refined = [
                predictor.refined(*one) if np.isfinite(one[0]).all() else one[0]
                for one in zip(logits, pixels, frames, strict=True)
            ]
            given.append(answers(logits, frames, ids, predictor.thresholds, truths, refined))
        for agreement, others in zip(self.agreements, given[1:], strict=True):
            for reference, other in zip(given[0], others, strict=True):
                agreement.add(reference, other)
        self.boxes += len(crops)
        self.drawn += sum(truth is not None for truth in truths or [])


def _logits(predictor: Predictor, crops: np.ndarray, size: SizeClass) -> list[np.ndarray]:
    """Logits of each crop of a batch, float32 [h,w]. Where some are NaN, each crop runs by itself, to find those."""
    try:
        return list(predictor.run(crops, size))
    except NanLogits:
        if len(crops) == 1:
            return [np.full((1, 1), np.nan, np.float32)]
        return [logits for crop in crops for logits in _logits(predictor, crop[None], size)]
