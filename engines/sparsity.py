"""`build-engine --sparse`: which layers have 2:4 zeros, which TensorRT says it can use them in, and which it does.

TensorRT chooses a sparse kernel where it measures it to be faster. It says so in its log while it builds, and the
engine inspector names the kernels on the GPU. TensorRT-RTX chooses when the engine first runs, and says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal_trt.base.errors import InputError, RunError

FLAG = "SPARSE_WEIGHTS"
SAYS = re.compile(r"\(Sparsity\) (Found|Chose) (\d+) layer\(s\)[^:]*(?::\s*(.*))?", re.S)


@dataclass(frozen=True)
class Sparse:
    """Layers by name: that TensorRT found eligible for sparse kernels, and that it chose them for; None where it did
    not say."""

    eligible: tuple[str, ...] | None = None
    chosen: tuple[str, ...] | None = None


def check_sparse(onnx_file: Path, model: str | Path) -> str:
    """How many layers of a file have 2:4 zeros, in words; InputError, which names `model`, if none has."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise RunError('--sparse looks for zeros with onnx; run: pip install "mal-trt[calibrate]"') from None
    from mal_trt.calibration.sparsity import sparse_layers

    found = sparse_layers(onnx.load(onnx_file))
    count = sum(found.values())
    if not count:
        raise InputError(f"{model}: no layer has 2:4 zeros, which --sparse is for; make some with `mal-trt prune`")
    return f"{count} of {len(found)} layers have 2:4 zeros"


def said(lines: Sequence[str]) -> Sparse:
    """What the lines of a build's log say."""
    found: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if match := SAYS.search(line):
            names = tuple(name.strip() for name in (match[3] or "").split(",") if name.strip())
            found[match[1]] = names or ("",) * int(match[2])
    return Sparse(found.get("Found"), found.get("Chose"))


def sparse_kernels(layers: str) -> tuple[str, ...] | None:
    """Layers of an engine whose kernel is a sparse one, by what the inspector says (JSON); None if it names none."""
    try:
        document = json.loads(layers)
    except ValueError:
        return None
    listed: list[Any] = document.get("Layers", []) if isinstance(document, dict) else []
    named = [entry for entry in listed if isinstance(entry, dict) and entry.get("TacticName")]
    if not named:
        return None
    return tuple(str(e.get("Name", "layer")) for e in named if "sparse" in str(e["TacticName"]).lower())
