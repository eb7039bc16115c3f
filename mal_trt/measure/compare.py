"""`mal-trt compare`: how far models are from the first of them, on real boxes, along the very path that labels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mal_trt.backends.choice import backend_of, one_each, reference_backend
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.outputs import check_apart, check_file, write_json
from mal_trt.base.progress import Progress
from mal_trt.formats.boxes import BoxesLike, as_boxes, open_pictures
from mal_trt.labelling.hints import nothing_usable
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.predictor import Predictor, Threshold
from mal_trt.labelling.told import told
from mal_trt.measure.compare_boxes import ComparedBoxes
from mal_trt.measure.compare_run import Compared, Comparison

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
    seen: Callable[[Compared], None] | None = None,
) -> dict[str, Any]:
    """Say how far models are from the first of them: the dict that `mal-trt compare --json-out` writes.

    - `models`: two or more model files, checkpoints, or "bundled".
    - `annotations`: boxes with drawn masks; or `boxes`: boxes alone. Either in any format that is read.
    - `count`: compare on this many boxes, spread evenly. None: all.
    - `backend`: as for `label`, for all models, or one for each ("onnxruntime,openvino"), which compares backends where
      a model is given twice. None: ONNX Runtime for .onnx files, TensorRT for engines.
    - `threshold`, `refine`: the same for all models. None: what each model asks for.
    - `json_out`: a file for the result. `seen`: called with each box that was compared, and all of its masks. The
      other options are those of `label`.

    Logits are compared as the network gives them, masks as `label` makes them of those. In the dict, `reference`
    describes the first model and `models` each other one with its figures; `boxes` were compared, `drawn_masks` of them
    had a drawn mask; `skipped` counts records that could not be used. InputError if there is nothing to compare.
    """
    document = as_boxes(_document(annotations, boxes))
    if isinstance(threshold, str):
        raise InputError(f"threshold {threshold}: models are compared at the same thresholds; give numbers")
    if len(models) < 2:
        raise InputError(f"compare needs two models or more, given {len(models)}: {', '.join(map(str, models))}")
    for name, value in (("batch", batch), ("count", count)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value}: expected 1 or more")
    backends = one_each(backend or [reference_backend(model) for model in models], len(models))
    check_file(json_out)
    check_apart((json_out,), (document.path, images, *models))
    source = open_pictures(images, document)
    predictors: list[Predictor] = []
    try:
        for model, one in zip(models, backends, strict=True):
            options: dict[str, Any] = {"threshold": threshold, "flip": flip, "refine": refine, "threads": threads}
            predictors.append(Predictor(model, device, backend=one, **options))
        with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
            journal = Journal(Path(folder) / "plan")
            try:
                write_plan(journal, {}, document, None, source, batch)
                plan = ComparedBoxes(journal, count, drawn=annotations is not None)
                if not plan.boxes:
                    raise NothingDone(nothing_usable(journal, source, document, images or document.home(), "compared"))
                if annotations is not None and not plan.any_truth():
                    raise InputError(NONE_DRAWN.format(document))
                read = told(journal)
                run = Comparison(predictors, batch, seen)
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
        raise NothingDone(f"{document}: no box to compare on ({_reasons(skipped)})")
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


def _reasons(skipped: dict[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in Counter(skipped).most_common(3)) or "it is empty"
