"""The result of `evaluate` on the screen."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mal_trt.labelling.summary import most_missing

MOST_ROWS = 40  # the JSON result has every class


def print_evaluation(result: dict[str, Any]) -> None:
    """The result as a table, classes with most objects first."""
    console = Console()
    for line in filter(None, [result.get("read"), *(f"note: {note}" for note in result.get("notes", ()))]):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    table = Table(box=box.SIMPLE_HEAD, title="Mask quality", title_justify="left")
    table.add_column("class")
    table.add_column("objects", justify="right")
    table.add_column("IoU", justify="right")
    classes = sorted(result["per_class"].items(), key=lambda item: (-item[1]["count"], item[0]))
    for name, figures in classes[:MOST_ROWS]:
        table.add_row(name, str(figures["count"]), _percent(figures["iou"]))
    if len(classes) > MOST_ROWS:
        rest = sum(figures["count"] for _, figures in classes[MOST_ROWS:])
        table.add_row(f"... {len(classes) - MOST_ROWS} more classes", str(rest), "")
    table.add_section()
    for label, key in (
        ("mean over classes (mIoU)", "miou"),
        ("  small boxes, up to 32²", "miou_small"),
        ("  medium boxes, up to 96²", "miou_medium"),
        ("  large boxes", "miou_large"),
        ("mean over objects", "miou_instance"),
        ("boundary IoU, mean over classes", "boundary_iou"),
    ):
        count = str(result["count"]) if key == "miou" else ""
        table.add_row(label, count, _percent(result[key]), style="bold" if key == "miou" else None)
    console.print(table)
    if result["skipped"]:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in result["skipped_reasons"].items())
        console.print(f"{result['skipped']} annotations not scored ({reasons})", highlight=False)
    total = result["count"] + result["skipped"]
    if warning := most_missing(total, result["skipped_reasons"], "were NOT scored"):
        console.print(warning, highlight=False, markup=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
