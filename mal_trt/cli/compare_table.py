"""The result of `compare` on the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mal_trt.labelling.summary import most_missing


def print_comparison(result: dict[str, Any]) -> None:
    """The result as a table: every model, and below it the figures for each size of box."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold", min_width=9)
    for title in ("boxes", "error %", "max %", "IoU", "worst", "<.9 %", "mIoU %", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    first = result["models"][0]
    name = escape(Path(result["reference"]["model"]).name)
    table.add_row(name, str(first["boxes"]), *["-"] * 5, *_scores(first["miou"], "all", "reference"), style="bold")
    for model in result["models"]:
        table.add_section()
        table.add_row(escape(Path(model["model"]).name), *_cells(model), *_scores(model["miou"], "all"), style="bold")
        for size, figures in model["by_size"].items():
            if figures["boxes"]:
                table.add_row(f"  {size}", *_cells(figures), *_scores(model["miou"], size))
    console.print(table)
    said = [
        "error, max: of the logits, in % of the range of the first model's; IoU: of the masks with the first model's"
    ]
    said += [_not_finite(result["reference"]["model"], m["reference_not_finite"]) for m in result["models"][:1]]
    for model in result["models"]:
        said.append(_not_finite(model["model"], model["not_finite"]))
        if model["logit_error"] is None and model["not_finite"]["count"] < model["boxes"]:
            said.append(f"{model['model']}: its logits cannot be compared with the reference's, only its masks")
    if result["skipped"]:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in result["skipped_reasons"].items())
        said.append(f"{result['skipped']} boxes skipped ({reasons})")
        total = result["boxes"] + result["skipped"]
        said.append(most_missing(total, result["skipped_reasons"], "were NOT compared"))
    console.print("\n".join(filter(None, said)), highlight=False, markup=False, soft_wrap=True)


def _cells(figures: dict[str, Any]) -> list[str]:
    error, iou = figures["logit_error"], figures["mask_iou"]
    errors = ["-"] * 2 if error is None else [f"{100 * error[f'relative_{key}']:.3f}" for key in ("mean", "max")]
    masks = ["-"] * 3 if iou is None else [f"{iou['mean']:.4f}", f"{iou['worst']:.3f}", f"{100 * iou['below_0.9']:.1f}"]
    return [str(figures["boxes"]), *errors, *masks]


def _scores(scores: dict[str, Any] | None, size: str, which: str = "other") -> list[str]:
    if scores is None or scores[which][size] is None:
        return ["-", "-"]
    change = "-" if which == "reference" else f"{100 * scores['difference'][size]:+.2f}"
    return [f"{100 * scores[which][size]:.2f}", change]


def _not_finite(model: str, found: dict[str, Any]) -> str:
    """The boxes where a model gave NaN or infinite logits; empty if there are none."""
    if not found["count"]:
        return ""
    more = ", ..." if found["count"] > len(found["boxes"]) else ""
    return f"{model}: NaN or infinite logits for {found['count']} boxes ({', '.join(map(str, found['boxes']))}{more})"
