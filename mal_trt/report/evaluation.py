"""The report of `evaluate`: figures of a result, every judged object with its mask and the drawn one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.rle import decode_rle
from mal_trt.measure.metrics import unique_names
from mal_trt.measure.worst import ScoredObject
from mal_trt.report.content import Card, Content
from mal_trt.report.labels import class_table, size_table
from mal_trt.report.plots import Row, bar_table, histogram, percent
from mal_trt.report.shown import Shown, ShownPicture, quality_of
from mal_trt.report.survey import Survey
from mal_trt.report.write import Report, write

LAYERS = ("mask", "drawn mask")


def report_of_evaluation(
    result: dict[str, Any],
    seen: list[ScoredObject],
    source: ImageSource,
    out: Path,
    command: str = "",
    threads: int | None = None,
    progress: bool = True,
) -> Report:
    """Write the report of what `evaluate` returned and showed; see `write`. command: recorded."""
    skipped = result["skipped_reasons"]
    facts = [
        ("Command", command),
        ("Annotations", result["annotations"]),
        ("Labels", result.get("labels")),
        ("Model", result.get("model")),
        ("Run by", result.get("provider")),
        ("Labelled in", f"{result['seconds']:.1f} s" if "seconds" in result else None),
        ("Read", result.get("read")),
        ("Not scored", "\n".join(f"{reason}: {count:,}" for reason, count in skipped.items())),
    ]
    grouped = _by_picture(seen)
    content = Content(
        title=f"Evaluation on {Path(result['annotations']).name}",
        subtitle=_subtitle(result),
        layers=LAYERS,
        pictures=lambda: _pictures(grouped),
        by="iou",
        cards=lambda survey: _cards(result, survey),
        figures=lambda survey: _figures(result, survey),
        facts=[(name, str(value)) for name, value in facts if value],
        notes=list(result.get("notes", ())),
    )
    return write(content, source, out, threads, progress)


def _by_picture(seen: list[ScoredObject]) -> dict[tuple[str, int, int], list[tuple[str, ScoredObject]]]:
    """Objects with the names of their classes, by file name, width and height of their pictures."""
    given = {one.category: one.name for one in seen}
    names = unique_names(list(given), given)
    grouped: dict[tuple[str, int, int], list[tuple[str, ScoredObject]]] = {}
    for one in seen:
        height, width = one.drawn["size"]
        key = str(one.picture.get("file_name")), width, height
        grouped.setdefault(key, []).append((names[one.category], one))
    return grouped


def _pictures(grouped: dict[tuple[str, int, int], list[tuple[str, ScoredObject]]]) -> Iterator[ShownPicture]:
    for (name, width, height), objects in grouped.items():
        yield ShownPicture(name, width, height, [_shown(*one) for one in objects])


def _shown(name: str, seen: ScoredObject) -> Shown:
    x, y, w, h = (float(value) for value in seen.bbox)
    box = x, y, x + w, y + h
    quality = quality_of(seen.quality, seen.found, decode_rle(seen.found).area, box)
    return Shown(seen.key, name, box, (seen.found, seen.drawn), iou=seen.iou, **quality)


def _subtitle(result: dict[str, Any]) -> str:
    if result["count"]:
        return "Masks against drawn ones, the objects of lowest IoU first."
    return "Masks against points that belong to each object or do not."


def _cards(result: dict[str, Any], survey: Survey) -> list[Card]:
    total = result["count"] + result["skipped"]
    masks = [
        Card("mIoU", percent(result["miou"]), "mean over classes"),
        Card("Mean over objects", percent(result["miou_instance"]), "IoU"),
        Card("Recall", percent(result["recall"]), "of the drawn pixels"),
        Card("Precision", percent(result["precision"]), "of the mask's pixels"),
        Card("Boundary IoU", percent(result["boundary_iou"]), "mean over classes"),
        Card("Objects", f"{result['count']:,}", f"of {len(survey.names):,} classes in {survey.pictures:,} pictures"),
    ]
    right = []
    if points := result.get("points"):
        sides = f"inside {percent(points['inside'])}, outside {percent(points['outside'])}"
        right = [Card("Points right", percent(points["right"]), f"of {points['count']:,}; {sides}")]
    left_out = Card("Not scored", f"{result['skipped']:,}", f"of {total:,} annotations")
    return [*(masks if result["count"] else []), *right, left_out]


def _figures(result: dict[str, Any], survey: Survey) -> list[Element]:
    points = _points(result["points"]) if "points" in result else []
    if not result["count"]:
        return points
    values = survey["iou"]
    return [
        histogram((values[values >= 0] / 1000).tolist(), "IoU with the drawn mask"),
        size_table(survey, "iou", {size: result[f"miou_{size.name.lower()}"] for size in SizeClass}),
        class_table(survey, "iou", {name: figures["iou"] for name, figures in result["per_class"].items()}),
        *points,
    ]


def _points(points: dict[str, Any]) -> list[Element]:
    """The shares of points that are right, the worst objects first."""
    rows = []
    for entry in points["objects"]:
        name = f"{entry['class']} (id {entry['annotation_id']})".strip()
        sides = f"{percent(entry['inside'])} / {percent(entry['outside'])}"
        share = entry["right"]
        rows.append(Row(name if entry["labelled"] else f"{name}, not labelled", sides, share, percent(share)))
    heads = ("object", "inside / outside", "all of its points")
    return [bar_table("Points that the masks get right", heads, rows, tall=len(rows) > 10)]
