"""The result of `benchmark` as rows: a table on the screen, a CSV file, a plot; and as JSON."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from mal_trt.base.errors import RunError
from mal_trt.measure.evaluate import write_json
from mal_trt.measure.hardware import one_line

Document = dict[str, Any]
MIX = "mix"
LATENCIES = ("p50_ms", "p90_ms", "p99_ms")
COLUMNS = (
    *("model", "sha256", "precision", "provider", "what", "batch", "clock", "runs", "mean_ms", *LATENCIES),
    *("boxes_per_s", "pictures_per_s", "miou", "iou", "error"),
)


def rows(result: Document) -> list[Document]:
    """One row for each batch of each model ("network") and one for its labelling ("label"), quality beside each."""
    found = []
    for model in result["models"]:
        quality = model["quality"] or {}
        shared = {name: model[name] for name in ("model", "sha256", "precision", "provider")}
        shared |= {name: quality.get(name) for name in ("miou", "iou")}
        found += [{**shared, "what": "network", **row} for row in model["network"]]
        if model["label"]:
            found.append({**shared, "what": "label", **model["label"]})
    return found


def write_report(
    result: Document, json_out: str | Path | None, csv_out: str | Path | None, plot_out: str | Path | None
) -> None:
    """Write the files that were asked for, each whole or not at all; RunError if one cannot be."""
    if json_out is not None:
        write_json(result, Path(json_out))
    if csv_out is not None:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows(result))
        _write(Path(csv_out), text.getvalue().encode())
    if plot_out is not None:
        _write(Path(plot_out), plot(result, Path(plot_out).suffix[1:].lower()))


def plot(result: Document, format: str) -> bytes:
    """Boxes a second against quality, a "png" or "svg": mean IoU with drawn masks, or with the first model's masks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = any((model["quality"] or {}).get("miou") is not None for model in result["models"])
    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, model in enumerate(result["models"]):
        quality = model["quality"] or {}
        # The first model's masks are the reference.
        at = quality.get("miou") if drawn else quality.get("iou", 1.0 if number == 0 else None)
        best = max(
            (row for row in model["network"] if "error" not in row), key=lambda r: r["boxes_per_s"], default=None
        )
        points = [(best, "o"), (model["label"], "s")]
        speeds = [(row["boxes_per_s"], mark) for row, mark in points if row and "error" not in row]
        if at is None or not speeds:
            continue
        for speed, mark in speeds:
            axes.plot(100 * at, speed, mark, color=f"C{number % 10}")
        axes.plot([], [], color=f"C{number % 10}", label=f"{Path(model['model']).name}, {model['precision']}")
    axes.plot([], [], "ko", label="network alone, best batch")
    axes.plot([], [], "ks", label="end to end")
    axes.set_xlabel("mean IoU with drawn masks, %" if drawn else "mean IoU with the first model's masks, %")
    axes.set_ylabel("boxes a second")
    axes.set_ylim(bottom=0)
    axes.set_title(one_line(result["machine"]), fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format=format, dpi=150)
    return picture.getvalue()


def print_report(result: Document) -> None:
    """The result as a table on the screen."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    found = rows(result)
    drawn = any(row["miou"] is not None for row in found)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold", min_width=8)
    quality_title = ["mIoU %"] if drawn else ["IoU %"] if len(result["models"]) > 1 else []
    for title in ("batch", "p50 ms", "p90 ms", "p99 ms", "boxes/s", "pictures/s", *quality_title):
        table.add_column(title, justify="right", no_wrap=True)
    for number, model in enumerate(result["models"]):
        table.add_section()
        name = f"{Path(model['model']).name} ({model['precision']})"
        for row in rows({"models": [model]}):
            batch = str(row["batch"]) if row["what"] == "network" else "label"
            quality = row["miou"] if drawn else 1.0 if number == 0 and row["iou"] is None else row["iou"]
            cells = [_cell(row.get(key), 2) for key in LATENCIES] + [_cell(row.get(key), 1) for key in RATES]
            if "error" in row:
                cells = ["failed", *[""] * 4]
            table.add_row(Text(name), batch, *cells, *[_cell(quality and 100 * quality, 2)][: len(quality_title)])
            name = ""
    console.print(table)
    said = [f"{one_line(result['machine'])}; {_providers(result)}", _clocks(result)]
    said += [f"{row['model']}, {_where(row)}: {row['error']}" for row in found if "error" in row]
    console.print("\n".join(said), highlight=False, markup=False, soft_wrap=True)


RATES = ("boxes_per_s", "pictures_per_s")


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
    return text


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
