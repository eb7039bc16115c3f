"""The result of `benchmark` as a plot of speed against quality. Needs matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mal_trt.measure.hardware import one_line


def plot(result: dict[str, Any], format: str) -> bytes:
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
