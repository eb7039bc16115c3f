"""`mal-trt evaluate`: masks against drawn ones, a model's or a label file's. Models against a model is `compare`."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.files import check_folder, write_json
from mal_trt.formats.boxes import Boxes, BoxesLike, Document, as_boxes, open_pictures
from mal_trt.formats.reading.nowhere import Nowhere
from mal_trt.formats.segmentations import to_rle
from mal_trt.labelling.predictor import Threshold
from mal_trt.labelling.run import label
from mal_trt.labelling.summary import Summary
from mal_trt.measure.metrics import ObjectScore, score_object, summarize


def evaluate(
    images: str | Path | None,
    annotations: BoxesLike,
    model: str | Path = "bundled",
    labels: str | Path | None = None,
    *,
    batch: int | None = None,
    device: str = "auto",
    crops: str = "auto",
    flip: bool = False,
    refine: str | None = None,
    weights: str | None = None,
    threshold: Threshold = None,
    threads: int | None = None,
    progress: bool = True,
    json_out: str | Path | None = None,
) -> dict[str, Any]:
    """Say how good masks are, compared with drawn ones: the dict that `mal-trt evaluate --json` writes.

    - `images`: a folder, a .tar or one picture. None: where the annotations say they are.
    - `annotations`: boxes with drawn masks (polygons or RLE), in any format that is read.
    - `model`: labels every box, exactly as `label` does. `labels`: score this label file instead; a COCO document then
      needs no pictures.
    - `json_out`: a file for the result. The other options are those of `label`.

    Annotations and labels meet by annotation id. The dict has `miou` (mean over classes), `miou_small`, `miou_medium`,
    `miou_large`, `miou_instance` (mean over objects), `boundary_iou` and `per_class`; `skipped` counts annotations that
    were left out, and `skipped_reasons` says why.
    """
    check_folder(json_out)
    annotations = as_boxes(annotations)
    truth = _truth(annotations, images)
    if labels is not None:
        result = score_labels(truth, _read_labels(Path(labels)), str(annotations))
        result["labels"] = str(labels)
    else:
        with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
            out = Path(folder) / "labels.json"
            summary = _labelled(
                images,
                annotations,
                model,
                out,
                batch=batch,
                device=device,
                crops=crops,
                threshold=threshold,
                flip=flip,
                refine=refine,
                weights=weights,
                threads=threads,
                progress=progress,
            )
            unlabelled = _read_json(summary.skipped_list) if summary.skipped_list else []
            result = score_labels(truth, _read_labels(out), str(annotations), unlabelled)
        result.update(
            read=summary.read,
            notes=list(summary.notes),
            model=str(model),
            provider=summary.provider,
            seconds=summary.seconds,
        )
    result["annotations"] = str(annotations)
    if json_out is not None:
        write_json(result, Path(json_out))
    return result


def _labelled(*given: Any, **options: Any) -> Summary:
    try:
        return label(*given, **options)
    except NothingDone as error:
        raise NothingDone(str(error)) from None  # the list of records is gone with its folder


def score_labels(
    truth: Document, labels: list[Any], where: str = "annotations", unlabelled: Iterable[Any] = ()
) -> dict[str, Any]:
    """Metrics of label records against the annotations of a COCO document, matched by annotation id.

    Label records need `id` and `segmentation`. `where` names the annotations in errors. unlabelled: records
    {"id", "reason"} that say why a label is missing.
    """
    predicted: dict[Any, Any] = {}
    for index, record in enumerate(labels):
        try:
            predicted.setdefault(_key(record, "id"), record.get("segmentation"))
        except ValueError:
            raise InputError(f"label record {index} has no `id`; masks meet annotations by id") from None
    sizes = {key: (image.get("height"), image.get("width")) for key, image in _by_id(truth["images"])}
    names = {key: str(entry.get("name", "")) for key, entry in _by_id(truth.get("categories"))}
    reasons = {key: str(entry.get("reason")) for key, entry in _by_id(list(unlabelled))}
    scores: list[ObjectScore] = []
    skipped: Counter[str] = Counter()
    seen: set[Any] = set()
    for annotation in truth["annotations"]:
        try:
            key = _key(annotation, "id")
            if key in seen:
                raise ValueError("duplicate id")
            seen.add(key)
            if not predicted.get(key):
                raise ValueError(reasons.get(key, "not labelled"))
            scores.append(_score(annotation, predicted[key], sizes))
        except ValueError as error:
            skipped[str(error)] += 1
    if not scores:
        why = "; ".join(f"{reason}: {count}" for reason, count in skipped.most_common(3)) or "it is empty"
        raise NothingDone(f"{where}: nothing to score ({why})")
    return {**summarize(scores, names), "skipped": sum(skipped.values()), "skipped_reasons": dict(skipped)}


def _score(annotation: dict[str, Any], label: Any, sizes: dict[Any, Any]) -> ObjectScore:
    """Score of one annotation against its label's segmentation; ValueError says why it has none."""
    truth = annotation.get("segmentation")
    if not truth:
        raise ValueError("no segmentation")
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_finite(v) for v in bbox):
        raise ValueError("no usable bbox")
    image = _key(annotation, "image_id")
    if image not in sizes:
        raise ValueError("unknown image")
    size = sizes[image]
    if not _is_size(size) and isinstance(label, dict):  # documents may leave the size to the picture
        size = label.get("size")
    if not _is_size(size):
        raise ValueError("image without height and width")
    height, width = size
    try:
        mask = to_rle(label, height, width)
    except ValueError as error:
        raise ValueError(f"label: {error}") from None
    return score_object(mask, to_rle(truth, height, width), _key(annotation, "category_id"), bbox[2] * bbox[3])


def _key(annotation: Any, field: str) -> Any:
    key = annotation.get(field) if isinstance(annotation, dict) else None
    if not isinstance(key, (int, str)):
        raise ValueError(f"no usable {field}")
    return key


def _by_id(records: Any) -> list[tuple[Any, dict[str, Any]]]:
    """The records that are objects with an id, with it."""
    entries = records if isinstance(records, list) else []
    return [(e["id"], e) for e in entries if isinstance(e, dict) and isinstance(e.get("id"), (int, str))]


def _is_size(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) is int and v > 0 for v in value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def _truth(annotations: Boxes, images: str | Path | None) -> Document:
    """The annotations as a document; only other formats than COCO, and resized pictures, need a look at these."""
    if annotations.streamed and not annotations.rescale:
        return annotations.document(Nowhere())
    return annotations.document(open_pictures(images, annotations))


def _read_labels(path: Path) -> list[Any]:
    document = _read_json(path)
    records = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(records, list):
        raise InputError(f"{path}: not labels; expected a COCO document or a list of label records")
    return records
