"""`mal-trt evaluate`: masks against drawn ones, a model's or a label file's. Models against a model is `compare`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mal_trt.backends.choice import AUTO
from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.files import FOLDER, file_kind, read_json
from mal_trt.base.outputs import check_apart, check_file, write_json
from mal_trt.formats.boxes import Boxes, BoxesLike, Document, as_boxes, open_pictures
from mal_trt.formats.ids import same_id
from mal_trt.formats.reading.nowhere import Nowhere
from mal_trt.formats.segmentations import to_rle
from mal_trt.labelling.document_rows import parse_bbox
from mal_trt.labelling.predictor import Threshold
from mal_trt.labelling.run import label
from mal_trt.labelling.summary import Summary
from mal_trt.measure.matching import Labels, by_id, category_names, most_common, usable_key
from mal_trt.measure.metrics import ObjectScore, score_object, summarize
from mal_trt.measure.points import ObjectPoints, read_points, score_points
from mal_trt.measure.worst import ScoredObject, Worst, check_worst

LABELS = "a COCO document or a list of label records"


def evaluate(
    images: str | Path | None,
    annotations: BoxesLike,
    model: str | Path = "bundled",
    labels: str | Path | None = None,
    *,
    batch: int | None = None,
    device: str = "auto",
    backend: str = AUTO,
    crops: str = "auto",
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    slack: float = 0.0,
    second_pass: bool = False,
    threshold: Threshold = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
    points: str | Path | None = None,
    worst_out: str | Path | None = None,
    seen: Callable[[ScoredObject], None] | None = None,
) -> dict[str, Any]:
    """Say how good masks are, compared with drawn ones: the dict that `mal-trt evaluate --json-out` writes.

    - `images`: a folder, a .tar or one picture. None: where the annotations say they are.
    - `annotations`: boxes with drawn masks (polygons or RLE), in any format that is read.
    - `model`: a model file, a checkpoint or "bundled", which labels every box exactly as `label` does. `batch`,
      `device`, `backend`, `crops`, `flip`, `refine`, `weights`, `slack`, `second_pass`, `threshold`, `threads`: as for
      `label`.
    - `labels`: score this label file instead, without a model; a COCO document then needs no pictures.
    - `progress`: show a bar.
    - `json_out`: a file for the result. `worst_out`: a PNG file that shows the twenty masks of lowest IoU.
    - `points`: a JSON file with points that belong to objects and points that do not; masks need not be drawn then.
    - `seen`: called with each object that was scored, and both of its masks.

    Annotations and labels meet by annotation id. The dict has `miou` (mean over classes), `miou_small`, `miou_medium`,
    `miou_large`, `miou_instance`, `recall` and `precision` (means over objects), `boundary_iou` and `per_class`;
    `points`, if they were given, has the shares that masks get right; `skipped` counts annotations that were left out,
    and `skipped_reasons` says why.

    InputError if a file or an option cannot be used. NothingDone if no annotation has a drawn mask, or none could be
    scored. RunError if labelling fails, or if a result cannot be written.
    """
    check_file(json_out)
    check_worst(None if worst_out is None else Path(worst_out))
    given = None if points is None else read_points(Path(points))
    annotations = as_boxes(annotations)
    check_apart((json_out, worst_out), (annotations.path, images, labels, points, model))
    pictures, worst = (None, None) if worst_out is None else (open_pictures(images, annotations), Worst())
    watchers = [*([] if seen is None else [seen]), *([] if worst is None else [worst.add])]
    truth = _truth(annotations, images)
    if not any(isinstance(record, dict) and record.get("segmentation") for record in truth["annotations"]):
        _without_drawn(annotations, given is not None, worst_out is not None)
    if labels is not None:
        records, shown = _read_labels(Path(labels))
        result = score_labels(truth, records, str(annotations), (), given, watchers, shown)
        result["labels"] = str(labels)
    else:
        options: dict[str, Any] = {
            **{"batch": batch, "device": device, "backend": backend, "crops": crops, "threshold": threshold},
            **{"flip": flip, "refine": refine, "weights": weights, "slack": slack, "threads": threads},
            **{"second_pass": second_pass, "progress": progress},
        }
        summary, found, unlabelled = _labelled(images, annotations, model, options)
        result = score_labels(truth, found, str(annotations), unlabelled, given, watchers)
        result.update(read=summary.read, notes=list(summary.notes), model=str(model))
        result.update(provider=summary.provider, seconds=summary.seconds)
    result["annotations"] = str(annotations)
    if json_out is not None:
        write_json(result, Path(json_out))
    if worst_out is not None and worst is not None and pictures is not None:
        if not result["count"]:
            raise NothingDone(f"{annotations}: no mask was scored, so there is no worst one to show")
        worst.write(pictures, Path(worst_out))
    return result


def _without_drawn(annotations: Boxes, points: bool, worst: bool) -> None:
    """Say that nothing is drawn before hours of labelling, where that leaves nothing to say afterwards."""
    if not points:
        raise NothingDone(
            f"{annotations}: nothing to score, no annotation has a drawn mask (segmentation); give annotations that "
            "have masks, or --points"
        )
    if worst:
        raise NothingDone(f"{annotations}: no drawn mask to compare with, so there is no worst one to show")


def _labelled(
    images: str | Path | None, annotations: Boxes, model: str | Path, options: dict[str, Any]
) -> tuple[Summary, list[Any], list[Any]]:
    """A label run's summary, its label records, and the records {"id", "reason"} of what has no label."""
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
        out = Path(folder) / "labels.json"
        try:
            summary = label(images, annotations, model, out, **options)
        except NothingDone as error:
            raise NothingDone(str(error)) from None  # the list of records is gone with its folder
        return summary, _read_labels(out)[0], read_json(summary.skipped_list) if summary.skipped_list else []


def score_labels(
    truth: Document,
    labels: list[Any],
    where: str = "annotations",
    unlabelled: Iterable[Any] = (),
    points: Mapping[Any, ObjectPoints] | None = None,
    watchers: Sequence[Callable[[ScoredObject], None]] = (),
    images: Any = (),
) -> dict[str, Any]:
    """Metrics of label records against the annotations of a COCO document, matched by annotation id.

    Label records need `id` and `segmentation`. `where` names the annotations in errors. unlabelled: records
    {"id", "reason"} that say why a label is missing. points: by annotation id; with them no mask need be drawn.
    watchers: are shown every scored object. images: the labels' own records of pictures: a label of another picture
    than its annotation's is none of it.
    """
    found = Labels(truth, labels, images)
    names = category_names(truth)
    reasons = {key: str(entry.get("reason")) for key, entry in by_id(list(unlabelled))}
    scores: list[ObjectScore] = []
    skipped: Counter[str] = Counter()
    seen: set[Any] = set()
    for annotation in truth["annotations"]:
        try:
            key = usable_key(annotation, "id")
            if key in seen:
                raise ValueError("duplicate id")
            seen.add(key)
            if key not in found:
                raise ValueError(reasons.get(key) or found.missing(key))
            scores.append(_score(annotation, found, names, watchers))
        except ValueError as error:
            skipped[str(error)] += 1
    if not scores and points is None:
        raise NothingDone(f"{where}: nothing to score ({most_common(skipped)})")
    result = {**summarize(scores, names), "skipped": sum(skipped.values()), "skipped_reasons": dict(skipped)}
    if points is not None:
        result["points"] = _score_points(points, truth, found, names, where)
    return result


def _score(
    annotation: dict[str, Any], found: Labels, names: dict[Any, str], watchers: Sequence[Callable[[ScoredObject], None]]
) -> ObjectScore:
    """Score of one annotation against its label; ValueError says why it has none."""
    drawn = annotation.get("segmentation")
    if not drawn:
        raise ValueError("no segmentation")
    bbox = parse_bbox(annotation.get("bbox"))
    if isinstance(bbox, str):
        raise ValueError(bbox)
    mask = found.mask(annotation)
    truth = to_rle(drawn, *found.size(annotation))
    category = same_id(usable_key(annotation, "category_id"), names)
    score = score_object(mask, truth, category, bbox[2] * bbox[3])
    if watchers:
        key, picture = annotation["id"], found.picture(annotation)
        quality = found.quality(usable_key(annotation, "id"))
        one = ScoredObject(key, names.get(category, ""), score.iou, bbox, picture, mask, truth, category, quality)
        for watcher in watchers:
            watcher(one)
    return score


def _score_points(
    points: Mapping[Any, ObjectPoints], truth: Document, found: Labels, names: dict[Any, str], where: str
) -> dict[str, Any]:
    annotations = dict(by_id(truth["annotations"]))
    if strange := [key for key in points if key not in annotations]:
        raise InputError(f"the points name annotation {strange[0]!r}, which {where} does not have; they meet by id")
    masks = {}
    for key in points:
        with suppress(ValueError):  # why, `skipped_reasons` says
            if key in found:
                masks[key] = found.mask(annotations[key])
    classes = {}
    for key in points:
        with suppress(ValueError):
            classes[key] = names.get(same_id(usable_key(annotations[key], "category_id"), names), "")
    return score_points(points, masks, classes)


def _truth(annotations: Boxes, images: str | Path | None) -> Document:
    """The annotations as a document; only other formats than COCO, and resized pictures, need a look at these."""
    if annotations.streamed and not annotations.rescale:
        return annotations.document(Nowhere())
    return annotations.document(open_pictures(images, annotations))


def _read_labels(path: Path) -> tuple[list[Any], Any]:
    """The records of a label file, and those of its pictures; of a list none."""
    if file_kind(path) == FOLDER:
        raise InputError(f"{path}: a folder; expected {LABELS}, which `mal-trt convert` makes of other formats")
    document = read_json(path)
    records = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(records, list):
        raise InputError(f"{path}: not labels; expected {LABELS}")
    return records, document.get("images") if isinstance(document, dict) else ()
