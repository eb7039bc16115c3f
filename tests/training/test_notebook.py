"""The notebook in examples/ runs from its first cell to its last, on a small set."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
for package in ("ipykernel", "matplotlib", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

NOTEBOOK = Path(__file__).parents[2] / "examples" / "train_and_label.ipynb"
SMALL = 'PICTURES, VALIDATION, EPOCHS, CROP, FOLDER = 24, 2, 1, 64, "small"'


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = read()
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = SMALL
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    assert "96 boxes to train on, 8 with masks" in said
    assert "toadstools.onnx: " in said and "trained: {'miou': " in said
    assert "12 of 12 boxes labelled by CPUExecutionProvider" in said
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3  # losses, masks, photos
    labels = json.loads((tmp_path / "small" / "labels.json").read_text())
    assert len(labels["annotations"]) == 12


def test_what_is_committed_is_small_and_of_no_machine() -> None:
    assert NOTEBOOK.stat().st_size < 1_000_000
    for cell in read().cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            text = json.dumps({k: v for k, v in output.get("data", {}).items() if k != "image/png"})
            text += output.get("text", "")
            assert not re.search(r"(?<![\w/.])/\w+/\w", text)  # an absolute path
