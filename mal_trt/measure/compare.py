"""`mal-trt compare`: how far models are from the first of them, on real boxes, with the crops and masks of `label`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mal_trt.backends.choice import backend_of, one_each, reference_backend
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.outputs import check_apart, check_file, write_json
from mal_trt.base.progress import Progress
from mal_trt.formats.boxes import Boxes, BoxesLike, as_boxes, open_pictures
from mal_trt.formats.images import ImageSource
from mal_trt.labelling.hints import nothing_usable
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor, Threshold
from mal_trt.labelling.read_report import read_report
from mal_trt.measure.compare_boxes import ComparedBoxes
from mal_trt.measure.compare_run import ComparedBox, Comparison
from mal_trt.measure.matching import most_common

NONE_DRAWN = "{}: no box has a drawn mask; give it as boxes (--boxes) to compare without"


def compare(
    models: Sequence[str | Path],
    images: str | Path | None,
    annotations: BoxesLike | None = None,
    boxes: BoxesLike | None = None,
    *,
    count: int | None = None,
    batch: int = 16,
    device: str = "auto",
    backend: str | Sequence[str] | None = None,
    threshold: Threshold = None,
    flip: bool = False,
    refine: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
    seen: Callable[[ComparedBox], None] | None = None,
) -> dict[str, Any]:
    """Say how far models are from the first of them: the dict that `mal-trt compare --json-out` writes.

    - `models`: two or more model files, checkpoints, or "bundled".
    - `images`: a folder, a .tar or one picture. None: where the annotations or boxes say they are.
    - `annotations`: boxes with drawn masks; or `boxes`: boxes alone. Either in any format that is read.
    - `count`: compare on this many boxes, spread evenly. None: all.
    - `batch`: how many boxes the networks see at once.
    - `backend`: as for `label`, for all models, or one for each ("onnxruntime,openvino"), which compares backends where
      a model is given twice. None: ONNX Runtime for .onnx files, TensorRT for engines.
    - `threshold`, `refine`: the same for all models. None: what each model asks for.
    - `device`, `flip`, `threads`: as for `label`. `progress`: show a bar.
    - `json_out`: a file for the result. `seen`: called with each box that was compared, and all of its masks.

    Logits are compared as the network gives them, masks as `label` makes them of those. In the dict, `reference`
    describes the first model and `models` each other one with its figures; `boxes` were compared, `drawn_masks` of them
    had a drawn mask; `skipped` counts records that could not be used.

    InputError if a file or an option cannot be used, or if no box has a drawn mask though `annotations` are given.
    NothingDone if no box can be compared. RunError if a model fails, or if the result cannot be written.
    """
    document = as_boxes(_document(annotations, boxes))
    _check(models, threshold, batch, count)
    backends = one_each(backend or [reference_backend(model) for model in models], len(models))
    check_file(json_out)
    check_apart((json_out,), (document.path, images, *models))
    source = open_pictures(images, document)
    options: dict[str, Any] = {"threshold": threshold, "flip": flip, "refine": refine, "threads": threads}
    with ExitStack() as stack:
        predictors = []
        for model, one in zip(models, backends, strict=True):
            predictors.append(Predictor(model, device, backend=one, **options))
            stack.callback(predictors[-1].close)
        journal = stack.enter_context(_planned(document, source, batch))
        plan = ComparedBoxes(journal, count, drawn=annotations is not None)
        if not plan.boxes:
            raise NothingDone(nothing_usable(journal, source, document, images or document.home(), "compared"))
        if plan.drawn and not plan.any_truth():
            raise InputError(NONE_DRAWN.format(document))
        read = read_report(journal)
        run = Comparison(predictors, batch, seen)
        with Progress("comparing", plan.boxes, show=progress) as bar:
            run.all(plan, source, bar.advance)
        skipped = Counter(journal.skipped()) + run.skipped
        facts = [_facts(model, predictor) for model, predictor in zip(models, predictors, strict=True)]
    if not run.boxes:
        raise NothingDone(f"{document}: no box to compare on ({most_common(skipped)})")
    if annotations is not None and not run.drawn:
        raise InputError(NONE_DRAWN.format(document))
    result = {
        "reference": facts[0],
        "models": [{**fact, **pairs.summary()} for fact, pairs in zip(facts[1:], run.agreements, strict=True)],
        "boxes": run.boxes,
        "drawn_masks": run.drawn,
        "skipped": sum(skipped.values()),
        "skipped_reasons": dict(skipped),
        "document": str(document),
        "read": read.line,
        "notes": list(read.notes),
        "flip": flip,
    }
    if json_out is not None:
        write_json(result, Path(json_out))
    return result


def _check(models: Sequence[str | Path], threshold: Threshold, batch: int, count: int | None) -> None:
    if isinstance(threshold, str):
        raise InputError(f"threshold {threshold}: models are compared at the same thresholds; give numbers")
    if len(models) < 2:
        raise InputError(f"compare needs two models or more, given {len(models)}: {', '.join(map(str, models))}")
    for name, value in (("batch", batch), ("count", count)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: expected 1 or more")


@contextmanager
def _planned(document: Boxes, source: ImageSource, batch: int) -> Iterator[Journal]:
    """The plan that a label run of the document would make."""
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
        journal = Journal(Path(folder) / "plan")
        try:
            write_plan(journal, {}, document, None, source, batch)
            yield journal
        finally:
            journal.close()


def _document(annotations: BoxesLike | None, boxes: BoxesLike | None) -> BoxesLike:
    if annotations is not None and boxes is None:
        return annotations
    if boxes is not None and annotations is None:
        return boxes
    raise InputError("compare needs either drawn masks (--annotations) or boxes (--boxes), one of the two")


def _facts(model: str | Path, predictor: Predictor) -> dict[str, Any]:
    return {
        "model": str(model),
        "precision": predictor.precision,
        "backend": backend_of(predictor.provider),
        "provider": predictor.provider,
        "input_size": predictor.contract.input_size,
        "sizes": predictor.contract.sizes,
        "thresholds": list(predictor.thresholds),
        "refine": predictor.refine,
    }
