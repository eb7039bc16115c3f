"""The result of `benchmark` on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mal_trt.measure.benchmark_report import LATENCIES, MIX, rows
from mal_trt.measure.hardware import one_line

Document = dict[str, Any]
RATES = ("boxes_per_s", "pictures_per_s")
POWER = {"watts": "W", "boxes_per_joule": "box/J"}


def print_benchmark(result: Document) -> None:
    """The result as a table, and below it what was timed, how and where, and what failed."""
    console = Console()
    found = rows(result)
    drawn = any(row["miou"] is not None for row in found)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold", min_width=8)
    quality_title = ["mIoU %"] if drawn else ["IoU %"] if len(result["models"]) > 1 else []
    power = POWER if any(row.get("watts") is not None for row in found) else {}
    # Eighty characters hold no more: with watts, p90 is in the files alone.
    latencies = [name for name in LATENCIES if name != "p90_ms" or not power]
    times = [name.replace("_", " ") for name in latencies]
    for title in ("batch", *times, "boxes/s", "pictures/s", *power.values(), *quality_title):
        table.add_column(title, justify="right", no_wrap=True)
    for number, model in enumerate(result["models"]):
        table.add_section()
        name = f"{Path(model['model']).name} ({model['precision']})"
        for row in rows({"models": [model]}):
            batch = str(row["batch"]) if row["what"] == "network" else "label"
            quality = row["miou"] if drawn else 1.0 if number == 0 and row["iou"] is None else row["iou"]
            cells = [_cell(row.get(key), 2) for key in latencies] + [_cell(row.get(key), 1) for key in RATES]
            cells += [_cell(row.get(key), 1) for key in power]
            if "error" in row:
                cells = ["failed", *[""] * (len(cells) - 1)]
            table.add_row(Text(name), batch, *cells, *[_cell(quality and 100 * quality, 2)][: len(quality_title)])
            name = ""
    console.print(table)
    said = [f"{one_line(result['machine'])}; {_providers(result)}", _clocks(result)]
    said += [f"{row['model']}, {_where(row)}: {row['error']}" for row in found if "error" in row]
    console.print("\n".join(said), highlight=False, markup=False, soft_wrap=True)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _where(row: Document) -> str:
    return f"batch {row['batch']}" if row["what"] == "network" else "label"


def _providers(result: Document) -> str:
    return ", ".join(dict.fromkeys(model["provider"] for model in result["models"]))


def _clocks(result: Document) -> str:
    """What was timed, and how."""
    clocks = dict.fromkeys(row["clock"] for model in result["models"] for row in model["network"] if "clock" in row)
    text = f"batches: the network alone, by {' and '.join(clocks) or 'no clock'}"
    if any(model["head"] == "dynamic" for model in result["models"]):
        shares = result["data"]["size_shares"]
        mix = ", ".join(f"{100 * share:.0f} % {name}" for name, share in shares.items())
        text += f", of boxes that are {mix if result['options']['size'] == MIX else result['options']['size']}"
    if any(model["label"] for model in result["models"]):
        text += f"; label: {result['data']['boxes']} boxes of {result['data']['name']}, decoding to run lengths"
    if meter := result["machine"].get("power_meter"):
        text += f"; watts: by {meter}"
    return text
