"""The result of `evaluate` on the screen."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mal_trt.labelling.summary import most_missing

MOST_ROWS = 40  # the JSON result has every class
MOST_REASONS = 5


def print_evaluation(result: dict[str, Any]) -> None:
    """The result as a table, classes with most objects first."""
    console = Console()
    for line in filter(None, [result.get("read"), *(f"note: {note}" for note in result.get("notes", ()))]):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if result["count"]:
        console.print(_masks(result))
    if points := result.get("points"):
        console.print(_points(points))
    if result["skipped"]:
        said = f"{result['skipped']} annotations not scored ({_reasons(result['skipped_reasons'])})"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    total = result["count"] + result["skipped"]
    if not result["count"]:
        return  # points alone were judged
    if warning := most_missing(total, result["skipped_reasons"], "were NOT scored"):
        console.print(warning, highlight=False, markup=False, soft_wrap=True)


def _reasons(skipped: dict[str, int]) -> str:
    """Why annotations were not scored, the most frequent first; some reasons name sizes, and are as many as these."""
    order = sorted(skipped.items(), key=lambda item: -item[1])
    said = [f"{reason}: {count}" for reason, count in order[:MOST_REASONS]]
    if rest := order[MOST_REASONS:]:
        said.append(f"{len(rest)} other reasons: {sum(count for _, count in rest)}")
    return "; ".join(said)


def _masks(result: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Mask quality", title_justify="left")
    table.add_column("class")
    table.add_column("objects", justify="right")
    table.add_column("IoU", justify="right")
    classes = sorted(result["per_class"].items(), key=lambda item: (-item[1]["count"], item[0]))
    for name, figures in classes[:MOST_ROWS]:
        table.add_row(Text(name), str(figures["count"]), _percent(figures["iou"]))
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
        ("  recall: share of the drawn pixels found", "recall"),
        ("  precision: share of the found pixels drawn", "precision"),
        ("boundary IoU, mean over classes", "boundary_iou"),
    ):
        count = str(result["count"]) if key == "miou" else ""
        table.add_row(label, count, _percent(result[key]), style="bold" if key == "miou" else None)
    return table


def _points(points: dict[str, Any]) -> Table:
    """Shares of points that are right, the worst objects first."""
    table = Table(box=box.SIMPLE_HEAD, title="Points that the masks get right", title_justify="left")
    table.add_column("object")
    for column in ("inside", "outside", "both"):
        table.add_column(column, justify="right")
    for entry in points["objects"][:MOST_ROWS]:
        name = f"{entry['class']} (id {entry['annotation_id']})".strip()
        table.add_row(Text(name if entry["labelled"] else f"{name}, not labelled"), *_shares(entry))
    if (rest := len(points["objects"]) - MOST_ROWS) > 0:
        table.add_row(f"... {rest} more objects", "", "", "")
    table.add_section()
    table.add_row(f"all {points['count']} points", *_shares(points), style="bold")
    return table


def _shares(figures: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_percent(figures[key]) for key in ("inside", "outside", "right"))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
