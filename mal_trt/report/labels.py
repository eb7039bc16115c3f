"""The report of labels: those of a run that has just ended, or of a label file that exists."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from mal_trt.base.errors import InputError, NothingDone
from mal_trt.base.files import read_json
from mal_trt.formats.boxes import BoxesLike, as_boxes, open_pictures
from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.labelling.convert import NO_MASK, read_masks
from mal_trt.labelling.journal import Journal
from mal_trt.labelling.journal_labels import JournalLabels
from mal_trt.labelling.outputs import skipped_records
from mal_trt.labelling.plan import write_plan
from mal_trt.labelling.read_report import read_report
from mal_trt.labelling.run_record import record_path, skipped_path
from mal_trt.labelling.summary import Summary
from mal_trt.report.content import Card, Content
from mal_trt.report.folder import check_report
from mal_trt.report.page import SIZES
from mal_trt.report.plots import Row, bar_table, histogram, percent
from mal_trt.report.shown import REASONS, Shown, ShownPicture, quality_of
from mal_trt.report.survey import Survey
from mal_trt.report.write import Report, write
from mal_trt.writers.labels import LabelSet

BATCH = 1 << 20  # the plan's batches mean nothing here
LAYERS = ("mask",)


def write_report(
    labels: BoxesLike,
    images: str | Path | None = None,
    out: str | Path = "report",
    *,
    threads: int | None = None,
    progress: bool = True,
) -> Report:
    """Show the masks of a label file in a folder of pages for a browser, as `mal-trt report` does.

    - `labels`: masks in any format that boxes are read from; those of `label` also tell how sure the network was.
    - `images`: a folder, a .tar or one picture. None: where the labels say they are.
    - `out`: a folder: a new or an empty one, or an earlier report, which is replaced. Open its `index.html`.
    - `threads`: threads of the processor. `progress`: show a bar.

    What was skipped and how the labels were made is shown too, where `labels.skipped.json` and `labels.run.json` lie
    beside them. InputError if something given cannot be used; NothingDone if there is no mask.
    """
    out = Path(out)
    check_report(out)
    boxes = as_boxes(labels)
    source = open_pictures(images, boxes)
    with tempfile.TemporaryDirectory(prefix="mal-trt-") as folder:
        journal = Journal(Path(folder) / "labels")
        try:
            with journal.guard():
                write_plan(journal, {}, boxes, None, source, BATCH, masks=True)
                read_masks(journal, progress)
                if not journal.count()[0]:
                    reasons = "; ".join(f"{reason}: {count}" for reason, count in list(journal.skipped().items())[:3])
                    raise NothingDone(
                        f"{boxes}: no mask to show ({reasons or 'it is empty'})"
                        + ("; masks for boxes are made by `mal-trt label`" if NO_MASK in journal.skipped() else "")
                    )
                file = Path(boxes.path)
                before = _beside(skipped_path(file))
                skipped = chain(before if isinstance(before, list) else [], skipped_records(journal))
                record = _beside(record_path(file))
                found = read_report(journal)
                facts = record_facts(record) or [("Read", found.line)]
                facts.insert(0, ("Labels", str(boxes)))
                content = _content(JournalLabels(journal), file.name, skipped, facts, list(found.notes))
                return write(content, source, out, threads, progress)
        finally:
            journal.delete()


def report_of_run(
    labels: LabelSet,
    source: ImageSource,
    summary: Summary,
    out: Path,
    threads: int | None = None,
    progress: bool = True,
) -> Report:
    """The report of a label run that has just written its outputs; see `write`."""
    skipped = read_json(summary.skipped_list) if summary.skipped_list else []
    facts = [("Labels", str(summary.out)), *record_facts(_beside(record_path(summary.out)))]
    content = _content(labels, summary.out.name, iter(skipped), facts, [*summary.notes, summary.warning])
    return write(content, source, out, threads, progress)


def record_facts(record: Any) -> list[tuple[str, str]]:
    """What a run record tells, by name."""
    if not isinstance(record, dict):
        return []
    model = record.get("model")
    used = record.get("used")
    versions = record.get("versions")
    facts = [
        ("Command", record.get("command")),
        ("Began", record.get("began")),
        ("Ended", record.get("ended")),
        ("Model", " ".join(str(value) for value in model.values()) if isinstance(model, dict) else None),
        ("Run by", f"{record.get('provider')} on {record.get('device')}, {record.get('threads')} threads"),
        ("Speed", f"{record.get('boxes_per_second')} boxes/s, {record.get('seconds')} s"),
        ("Read", record.get("read")),
        ("Options", _listed(used)),
        ("Versions", _listed({"mal-trt": record.get("mal_trt"), **(versions if isinstance(versions, dict) else {})})),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _listed(values: Any) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items()) if isinstance(values, dict) else ""


def _beside(path: Path) -> Any:
    """What a file beside the labels holds; None if there is none, or none that can be read."""
    try:
        return read_json(path) if path.is_file() else None
    except InputError:
        return None


def _content(
    labels: LabelSet, name: str, skipped: Iterator[dict[str, Any]], facts: list[tuple[str, str]], notes: list[str]
) -> Content:
    records = [record for record in skipped if isinstance(record, dict)]

    def pictures() -> Iterator[ShownPicture]:
        for picture in labels.pictures():
            shown = [
                Shown(
                    *(thing.record.get("id"), thing.category.name, thing.box, (thing.rle,)),
                    iou=_number(thing.record.get("iou")),
                    **quality_of(thing.marks, thing.rle, thing.area, thing.box),
                )
                for thing in picture.objects
            ]
            yield ShownPicture(picture.name, picture.width, picture.height, shown)

    return Content(
        title=f"Masks of {name}",
        subtitle=_subtitle,
        layers=LAYERS,
        pictures=pictures,
        by="score",
        cards=lambda survey: _cards(survey, len(records)),
        figures=_figures,
        skipped=records,
        facts=facts,
        notes=[note for note in notes if note],
    )


def _subtitle(survey: Survey) -> str:
    order = "those that the network was least sure of first" if survey.by else "in the order of the pictures"
    return f"Each mask on the crop around its box, {order}."


def _cards(survey: Survey, skipped: int) -> list[Card]:
    doubted = int((survey["reasons"] > 0).sum())
    score = survey.mean("score")
    iou = survey.mean("iou")
    cards = [
        Card("Masks", f"{len(survey):,}"),
        Card("Pictures", f"{survey.pictures:,}"),
        Card("Classes", f"{len(survey.names):,}"),
        Card("Mean score", percent(score), "how sure the network is") if score is not None else None,
        Card("Mean IoU", percent(iou), "with the drawn masks") if iou is not None else None,
        Card("Worth a look", f"{doubted:,}", percent(doubted / max(1, len(survey))) + " of the masks"),
        Card("Skipped", f"{skipped:,}", "records without a mask"),
    ]
    return [card for card in cards if card is not None]


def _figures(survey: Survey) -> list[Element]:
    figures = []
    scores = survey["score"]
    if np.any(scores >= 0):
        figures.append(histogram((scores[scores >= 0] / 1000).tolist(), "Score: how sure the network is of each mask"))
    figures.append(_reasons(survey))
    column = "score" if np.any(scores >= 0) else "iou"
    figures += [class_table(survey, column), size_table(survey, column)]
    return figures


def class_table(survey: Survey, column: str, means: Mapping[str, float | None] | None = None) -> Element:
    """Objects of each class and their mean score or IoU. means: those means by class, where they are known better than
    from thousandths."""
    kinds, values = survey["class"], survey[column]
    counts = np.bincount(kinds, minlength=len(survey.names))
    there = np.bincount(kinds, values >= 0, minlength=len(survey.names))
    sums = np.bincount(kinds, np.maximum(values, 0), minlength=len(survey.names))
    rows = []
    for kind, name in enumerate(survey.names):
        mean = float(sums[kind] / there[kind] / 1000) if there[kind] else None
        mean = mean if means is None else means.get(name, mean)
        count = f"{int(counts[kind]):,}"
        rows.append(Row(name or "(no class)", count, mean, percent(mean), {"data_class": kind}))
    return bar_table("Classes", ("class", "objects", _head(column)), rows, tall=len(rows) > 10)


def size_table(survey: Survey, column: str, mious: Mapping[SizeClass, float | None] | None = None) -> Element:
    """Objects of each size and their mean score or IoU. mious: their means over classes, to be shown instead."""
    rows = []
    for size in SizeClass:
        where = survey.of_size(size)
        mean = survey.mean(column, where) if mious is None else mious[size]
        rows.append(Row(SIZES[size], f"{int(where.sum()):,}", mean, percent(mean), {"data_size": int(size)}))
    head = _head(column) if mious is None else "mIoU"
    return bar_table("Size of the box, in pixels", ("size", "objects", head), rows)


def _reasons(survey: Survey) -> Element:
    bits, total = survey["reasons"], max(1, len(survey))
    rows = []
    for bit, name in enumerate(REASONS):
        count = int(((bits >> bit) & 1).sum())
        if count:
            rows.append(Row(name, f"{count:,}", count / total, percent(count / total), {"data_reason": bit}))
    return bar_table("Worth a look", ("the mask", "objects", "share of all"), rows)


def _head(column: str) -> str:
    return "mean IoU" if column == "iou" else "mean score"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None
