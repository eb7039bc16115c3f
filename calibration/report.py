"""The report of a calibration: layer by layer, as rows. On the screen it is `cli.calibrate_table`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from mal_trt.calibration.gate import Cost
from mal_trt.calibration.quantize import Layer
from mal_trt.calibration.targets import Target


def layer_rows(
    chosen: Sequence[Layer],
    quantized: Collection[str],
    target: Target,
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
                "range": target.range(layer),
                "largest": target.largest(layer),
                "change": cost.change if cost else None,
                "error": cost.error if cost else None,
                "precision": precision if layer.name in quantized else target.rest,
            }
        )
    return rows
