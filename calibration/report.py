"""The report of a calibration: layer by layer, as rows and as a table on the screen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mal_trt.calibration.activations import Measured
from mal_trt.calibration.gate import Cost
from mal_trt.calibration.quantize import Layer


def layer_rows(
    chosen: Sequence[Layer],
    quantized: Collection[str],
    ranges: Mapping[str, float],
    measured: Measured,
    costs: Sequence[Cost],
    precision: str,
) -> list[dict[str, Any]]:
    """One row a layer: its range and the largest input seen, what it costs alone (see `Cost`), its precision."""
    by_layer = {cost.layer: cost for cost in costs}
    rows = []
    for layer in chosen:
        cost = by_layer.get(layer.name)
        rows.append(
            {
                "name": layer.name,
                "group": layer.group,
                "range": ranges[layer.name],
                "largest": measured.spectra[layer.name].largest,
                "change": cost.change if cost else None,
                "error": cost.error if cost else None,
                "precision": precision if layer.name in quantized else "fp16",
            }
        )
    return rows


def print_report(document: Mapping[str, Any]) -> None:
    """The layers as a table, dearest first, and the verdict."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title="Layers by what each costs alone", title_justify="left")
    table.add_column("layer", no_wrap=True)
    for name in ("range", "largest", "mask change", "logit error", ""):
        table.add_column(name, justify="right")
    for row in sorted(document["layers"], key=lambda row: (-(row["change"] or 0), -(row["error"] or 0))):
        figures = ("-" if value is None else f"{value:.5f}" for value in (row["change"], row["error"]))
        table.add_row(
            row["name"].partition("/")[0], f"{row['range']:.3g}", f"{row['largest']:.3g}", *figures, row["precision"]
        )
    console.print(table)
    count = sum(row["precision"] != "fp16" for row in document["layers"])
    console.print(f"{count} of {len(document['layers'])} layers quantised: {document['verdict']}", highlight=False)
