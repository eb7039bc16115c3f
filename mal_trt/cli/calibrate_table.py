"""The report of a calibration on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_calibration(document: Mapping[str, Any]) -> None:
    """The layers as a table, costliest first, and the verdict."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title="Layers by what each costs alone", title_justify="left")
    table.add_column("layer", overflow="fold")
    for name in ("range", "largest", "mask change", "logit error", ""):
        table.add_column(name, justify="right", no_wrap=name == "")
    for row in sorted(document["layers"], key=lambda row: (-(row["change"] or 0), -(row["error"] or 0))):
        figures = ("-" if value is None else f"{value:.5f}" for value in (row["change"], row["error"]))
        table.add_row(_short(row["name"]), f"{row['range']:.3g}", f"{row['largest']:.3g}", *figures, row["precision"])
    console.print(table)
    count = sum(row["precision"] not in ("fp16", "fp32") for row in document["layers"])
    share = f"{document['multiplications']:.1%} of the multiplications by weights"
    text = f"{count} of {len(document['layers'])} layers quantised, {share}: {document['verdict']}"
    console.print(text, highlight=False, soft_wrap=True)
    for warning in document["warnings"]:
        console.print(warning, highlight=False, markup=False, soft_wrap=True)


def _short(name: str) -> str:
    """A layer's name without the network's, the operator's and the last word that all convolutions share; what is left
    still tells it from all others, and --exclude takes it."""
    module = name.partition("/")[0]
    return module.removeprefix("teacher.").removeprefix("student.").removesuffix(".conv")
