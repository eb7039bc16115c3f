"""The report of `compare`: how far models are from the first, and every box with the masks of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mal_trt.formats.images import ImageSource
from mal_trt.geometry.rle import RLE, decode_rle
from mal_trt.measure.agreement import CLOSE, agreement_iou
from mal_trt.measure.compare_run import ComparedBox
from mal_trt.report.content import Card, Content
from mal_trt.report.labels import class_table, size_table
from mal_trt.report.plots import histogram, percent, plain_table
from mal_trt.report.shown import Shown, ShownPicture, quality_of
from mal_trt.report.survey import Survey
from mal_trt.report.write import Report, write

MODELS = 3  # whose masks can be told apart; the drawn one is the fourth
EMPTY: RLE = {"size": [1, 1], "counts": "1"}


def report_of_comparison(
    result: dict[str, Any],
    seen: list[ComparedBox],
    source: ImageSource,
    out: Path,
    command: str = "",
    threads: int | None = None,
    progress: bool = True,
) -> Report:
    """Write the report of what `compare` returned and showed; see `write`. command: recorded."""
    models = [result["reference"], *result["models"]]
    names = _names(models)
    drawn = result["drawn_masks"] > 0
    notes = list(result["notes"])
    if len(models) > MODELS:
        notes.append(f"Masks are shown of the first {MODELS} of {len(models)} models; figures are of all.")
    grouped: dict[tuple[str, int, int], list[ComparedBox]] = {}
    for one in seen:
        grouped.setdefault((one.box.file_name, one.box.width, one.box.height), []).append(one)
    facts = [
        ("Command", command),
        ("Boxes", result["document"]),
        ("Read", result["read"]),
        *((f"Model {number}", _fact(model)) for number, model in enumerate(models, 1)),
        ("Not compared", "\n".join(f"{reason}: {count:,}" for reason, count in result["skipped_reasons"].items())),
    ]
    content = Content(
        title=f"Comparison with {names[0]}",
        subtitle="Masks of other models against those of the first, the boxes where they differ most first.",
        layers=(*names[:MODELS], *(["drawn mask"] if drawn else [])),
        pictures=lambda: _pictures(grouped, drawn),
        by="iou",
        cards=lambda survey: _cards(result, names),
        figures=lambda survey: [*_table(result, names), *_figures(survey)],
        facts=[(name, str(value)) for name, value in facts if value],
        notes=notes,
    )
    return write(content, source, out, threads, progress)


def _pictures(grouped: dict[tuple[str, int, int], list[ComparedBox]], drawn: bool) -> Iterator[ShownPicture]:
    for key, boxes in grouped.items():
        yield ShownPicture(*key, [_shown(one, drawn) for one in boxes])


def _shown(one: ComparedBox, drawn: bool) -> Shown:
    """Its IoU is that of the model that is furthest from the first."""
    first, *others = one.masks
    iou = min((0.0 if first is None or mask is None else agreement_iou(first, mask)) for mask in others)
    quality = quality_of(None, first or EMPTY, 0 if first is None else decode_rle(first).area, one.box.xyxy)
    masks = (*one.masks[:MODELS], *([one.drawn] if drawn else []))
    return Shown(one.box.id, one.box.name, one.box.xyxy, masks, iou=iou, **quality)


def _names(models: list[dict[str, Any]]) -> list[str]:
    """File names, numbered where two are the same."""
    names = [Path(model["model"]).name for model in models]
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]


def _fact(model: dict[str, Any]) -> str:
    thresholds = ", ".join(f"{value:g}" for value in model["thresholds"])
    facts = [model["precision"], model["provider"], f"crops of {model['input_size']}", f"thresholds {thresholds}"]
    return f"{model['model']}\n{', '.join(map(str, facts))}"


def _cards(result: dict[str, Any], names: list[str]) -> list[Card]:
    cards = [Card("Boxes", f"{result['boxes']:,}", f"{result['drawn_masks']:,} with a drawn mask")]
    for name, model in zip(names[1:], result["models"], strict=True):
        if (iou := model["mask_iou"]) is not None:
            cards.append(Card("Mean IoU of masks", percent(iou["mean"]), name))
            cards.append(Card("Changed", percent(iou["below_0.9"]), f"masks of IoU below {CLOSE:g}, {name}"))
        if (miou := model["miou"]) and miou["difference"]["all"] is not None:
            points = f"{100 * miou['difference']['all']:+.2f} points"
            cards.append(Card("mIoU", percent(miou["other"]["all"]), f"{points}, {name}"))
    return cards


def _table(result: dict[str, Any], names: list[str]) -> list[Element]:
    rows = []
    for name, model in zip(names[1:], result["models"], strict=True):
        for size, part in (("all", model), *model["by_size"].items()):
            iou, error = part["mask_iou"], part["logit_error"]
            figures = [percent(iou["mean"]), percent(iou["worst"])] if iou else ["–", "–"]
            logits = f"{error['relative_mean']:.2e}" if error else "–"
            rows.append([name, size, f"{part['boxes']:,}", *figures, logits])
    heads = ["model", "boxes", "count", "mean IoU", "lowest", "logit error"]
    return [plain_table("Agreement with the first model", heads, rows, numbers_from=2)]


def _figures(survey: Survey) -> list[Element]:
    values = survey["iou"]
    return [
        histogram((values[values >= 0] / 1000).tolist(), "IoU with the first model's mask", "boxes"),
        size_table(survey, "iou"),
        class_table(survey, "iou"),
    ]
