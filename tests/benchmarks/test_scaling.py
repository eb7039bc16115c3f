"""`benchmarks/scaling.py`: which cells there are, that they can be measured, and the plot."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]

sys.path.append(str(ROOT / "benchmarks"))
import scaling


def test_the_cells() -> None:
    whole = scaling.cells_of(list(scaling.AXES), 1_000_000, 2)
    assert len(whole) == 2 + 4 + 7 + 2 + 4
    assert whole["boxes hollow 1000000"] == ["hollow", "--count", "1000000", "--threads", "2"]
    assert whole["workers 3"] == ["label", "--count", "2000", "--threads", "3", "--workers", "3"]
    assert "pictures 100" in whole and "pictures 0.3" in whole
    assert list(scaling.cells_of(["boxes"], 1000, 2)) == ["boxes label 1000", "boxes hollow 1000"]


def options(**more: Any) -> argparse.Namespace:
    examples = ROOT / "examples"
    base = {"images": examples / "photos", "boxes": examples / "boxes.json", "model": "bundled", "threads": 1}
    return argparse.Namespace(**{**base, "workers": 1, **more})


def test_boxes_without_a_network(tmp_path: Path) -> None:
    found = scaling.hollow_cell(options(count=200), tmp_path)
    assert found["boxes"] >= 200 and found["boxes_per_s"] > 0 and found["peak_mb"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_boxes_with_one(tmp_path: Path, workers: int) -> None:
    found = scaling.label_cell(options(count=30, workers=workers, threads=workers), tmp_path)
    assert found["boxes"] == 30 and ("peak_mb" in found) == (workers == 1)


@pytest.mark.slow
def test_pictures_of_a_size(tmp_path: Path) -> None:
    found = scaling.picture_cell(options(megapixels=2.0), tmp_path)
    assert found["pictures"] == 7 and found["exact_boxes_per_s"] > 0
    assert found["exact_peak_mb"] >= found["scaled_peak_mb"]


FIGURES = {
    **{"boxes_per_s": 10.0, "peak_mb": 100, "exact_boxes_per_s": 3.0, "scaled_boxes_per_s": 6.0, "plan_s": 0.5},
    **{"exact_peak_mb": 300, "scaled_peak_mb": 200, "provider": "CPUExecutionProvider"},
}


@pytest.fixture
def found() -> dict[str, Any]:
    cells = {name: dict(FIGURES) for name in scaling.cells_of(list(scaling.AXES), 1_000_000, 2)}
    machine = {"cpu": "A processor", "cores": 2}
    return {"machine": machine, "date": "2026-11-29", "cells": cells, "failed": {}}


def test_the_tables(found: dict[str, Any]) -> None:
    del found["cells"]["pictures 48"], found["cells"]["workers 2"]["peak_mb"]
    found["failed"]["pictures 48"] = "not finished after 900 s"
    text = scaling.table(found)
    assert "| 1,000 | 10 | 100 MB | 10 boxes/s | 0.5 s | 100 MB |" in text
    assert "| 1,000,000 |  |  | 10 boxes/s | 0.5 s | 100 MB |" in text
    assert "| 0.3 | 3 | 300 MB | 6 | 200 MB |" in text and "| 48 |" not in text
    assert "| 2 | 10 | 10 |" in text and "| 3 |  | 10 |" in text
    assert "A processor, 2 cores; CPUExecutionProvider; 2026-11-29." in text
    assert "Not measured: pictures 48, not finished after 900 s." in text
    assert "megapixels" not in scaling.table({**found, "cells": {"threads 1": FIGURES}})


def test_the_plot(found: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    picture = scaling.plot(json.loads(json.dumps(found))).decode()
    assert "A processor, 2 cores, 2026-11-29" in picture
    for text in ("no network, no pictures", "--decode scaled", ">processes<", "by megapixels of the picture"):
        assert text in picture
    assert len(picture) < 200_000
    empty = scaling.plot({**found, "cells": {"threads 1": FIGURES}}).decode()
    assert ">processes<" not in empty and "by number of boxes" in empty
