"""The report of `benchmark`: how fast models are, and how good, in tables and bars. It shows no object."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from mal_trt.measure.benchmark_report import LATENCIES
from mal_trt.measure.benchmark_report import rows as benchmark_rows
from mal_trt.measure.hardware import one_line
from mal_trt.report.content import Card, Content
from mal_trt.report.plots import Row, bar_table, percent, plain_table
from mal_trt.report.write import Report, write

RATES = {"boxes_per_s": "boxes/s", "pictures_per_s": "pictures/s", "watts": "watts", "boxes_per_joule": "boxes/J"}


def report_of_benchmark(result: dict[str, Any], out: Path) -> Report:
    """Write the report of what `benchmark` returned, even where it was interrupted; see `write`."""
    data = result["data"]
    shares = ", ".join(f"{percent(share)} {size}" for size, share in data["size_shares"].items())
    options = result["options"]
    facts = [
        ("Command", result["command"]),
        ("Date", result["date"]),
        ("Machine", one_line(result["machine"])),
        ("Data", f"{data['boxes']:,} boxes in {data['pictures']:,} pictures: {data['name']}\n{shares}"),
        ("Options", "\n".join(f"{name}: {value}" for name, value in options.items() if name != "label")),
        ("Options of labelling", "\n".join(f"{n}: {v}" for n, v in options["label"].items() if v is not None)),
        ("Versions", f"mal-trt {result['mal_trt']}"),
        *((f"Model {n}", f"{m['model']}\n{m['sha256'] or ''}") for n, m in enumerate(result["models"], 1)),
    ]
    content = Content(
        title="Benchmark",
        subtitle=one_line(result["machine"]),
        cards=lambda survey: _cards(result),
        figures=lambda survey: _figures(result),
        facts=[(name, str(value)) for name, value in facts if value],
        notes=[] if result["complete"] else ["The benchmark was interrupted; these are the figures that it had."],
    )
    return write(content, None, out)


def _cards(result: dict[str, Any]) -> list[Card]:
    cards = []
    for model in result["models"]:
        name = _name(model)
        if best := _best(model):
            cards.append(
                Card("Network alone", f"{best['boxes_per_s']:,.1f} /s", f"boxes, batch {best['batch']}, {name}")
            )
        if (label := model["label"]) and "error" not in label:
            cards.append(Card("Files to masks", f"{label['boxes_per_s']:,.1f} /s", f"boxes, {name}"))
        quality = model["quality"] or {}
        if quality.get("miou") is not None:
            cards.append(Card("mIoU", percent(quality["miou"]), name))
        elif quality.get("iou") is not None:
            cards.append(Card("IoU with the first", percent(quality["iou"]), name))
    return cards


def _figures(result: dict[str, Any]) -> list[Element]:
    models = result["models"]
    given = [(model, row) for model in models for row in benchmark_rows({"models": [model]})]
    there = {"boxes_per_s", *(key for _, row in given for key in row if row[key] is not None)}
    rates = {key: head for key, head in RATES.items() if key in there}
    rows = []
    for model, row in given:
        latencies = [f"{row[key]:,.2f}" if row.get(key) is not None else "–" for key in LATENCIES]
        speeds = [f"{row[key]:,.1f}" if row.get(key) is not None else "–" for key in rates]
        if "error" in row:
            speeds[0] = row["error"]
        about = [_name(model), model["precision"] or "", row["what"], str(row.get("batch") or "")]
        rows.append([*about, *latencies, *speeds])
    times = [key.removesuffix("_ms") + " ms" for key in LATENCIES]
    heads = ["model", "precision", "what", "batch", *times, *rates.values()]
    found = [
        _bars("Network alone, best batch: boxes a second", [(model, _best(model)) for model in models]),
        _bars("From files to masks: boxes a second", [(model, model["label"]) for model in models]),
    ]
    found += [_quality(models, "miou", "mIoU"), _quality(models, "iou", "IoU with the first model's masks")]
    return [*filter(None, found), plain_table("Every figure", heads, rows, numbers_from=3)]


def _bars(title: str, given: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> Element | None:
    rows = [(model, row["boxes_per_s"]) for model, row in given if row is not None and "error" not in row]
    if not rows:
        return None
    most = max(speed for _, speed in rows) or 1.0
    made = [Row(_name(model), model["precision"] or "", speed / most, f"{speed:,.1f}") for model, speed in rows]
    return bar_table(title, ("model", "precision", "boxes/s"), made)


def _quality(models: list[dict[str, Any]], key: str, title: str) -> Element | None:
    there = [(model, (model["quality"] or {}).get(key)) for model in models]
    rows = [Row(_name(m), m["precision"] or "", value, percent(value)) for m, value in there if value is not None]
    return bar_table(title, ("model", "precision", "mean"), rows) if rows else None


def _best(model: dict[str, Any]) -> dict[str, Any] | None:
    rows = [row for row in model["network"] if "error" not in row]
    return max(rows, key=lambda row: float(row["boxes_per_s"]), default=None)


def _name(model: dict[str, Any]) -> str:
    return Path(model["model"]).name
