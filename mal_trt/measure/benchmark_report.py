"""The result of `benchmark` as rows, and in files: JSON, CSV and a plot. On the screen it is `cli.benchmark_table`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from mal_trt.base.outputs import write_json, write_whole
from mal_trt.measure.benchmark_plot import plot

Document = dict[str, Any]
MIX = "mix"
LATENCIES = ("p50_ms", "p90_ms", "p99_ms")
COLUMNS = (
    *("model", "sha256", "precision", "provider", "what", "batch", "clock", "runs", "mean_ms", *LATENCIES),
    *("boxes_per_s", "pictures_per_s", "watts", "boxes_per_joule", "miou", "iou", "error"),
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


def all_failed(result: Document) -> list[str]:
    """Why each row failed, if all of them did; else nothing."""
    found = rows(result)
    errors = [str(row["error"]) for row in found if "error" in row]
    return errors if len(errors) == len(found) else []


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
        write_whole(Path(csv_out), text.getvalue().encode())
    if plot_out is not None:
        write_whole(Path(plot_out), plot(result, Path(plot_out).suffix[1:].lower()))
