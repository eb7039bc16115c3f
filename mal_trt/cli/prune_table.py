"""The report of a pruning on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_pruning(document: Mapping[str, Any]) -> None:
    """What is left of the widths that were cut, the layers that stayed dense, and the verdict."""
    console = Console()
    if document["widths"]:
        table = Table(box=box.SIMPLE_HEAD, title="Widths that were cut", title_justify="left")
        table.add_column("width", overflow="fold")
        table.add_column("left", justify="right")
        table.add_column("of", justify="right")
        for name, width in document["widths"].items():
            table.add_row(name, str(width["left"]), str(width["of"]))
        console.print(table)
    rows = [row for row in document["layers"] if row["change"] is not None]
    if rows:
        table = Table(box=box.SIMPLE_HEAD, title="Layers by what each costs alone", title_justify="left")
        table.add_column("layer", overflow="fold")
        for name in ("mask change", "logit error", ""):
            table.add_column(name, justify="right", no_wrap=name == "")
        for row in sorted(rows, key=lambda row: (-row["change"], -row["error"])):
            figures = (f"{row['change']:.5f}", f"{row['error']:.5f}", "2:4" if row["sparse"] else "dense")
            table.add_row(row["name"].removesuffix(".conv"), *figures)
        console.print(table)
    work = document["multiplications"]
    parts = []
    if work["left"] < work["dense"]:
        parts.append(f"{work['left'] / 1e6:.0f} of {work['dense'] / 1e6:.0f} million multiplications left")
    sparse = sum(row["sparse"] for row in document["layers"])
    if sparse:
        share = f"{document['sparse_share']:.1%} of the multiplications by weights"
        parts.append(f"{sparse} of {len(document['layers'])} layers 2:4 sparse, {share}")
    text = f"{'; '.join(parts)}: {document['verdict']}"
    console.print(text, highlight=False, soft_wrap=True)
    for warning in document["warnings"]:
        console.print(warning, highlight=False, markup=False, soft_wrap=True)
