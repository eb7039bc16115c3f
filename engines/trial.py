"""A new engine tried on this machine's GPU: are its masks right (`artifacts.parity`), what are its layers made of?"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mal_trt.artifacts.enginefile import covers
from mal_trt.artifacts.manifest import UNCHECKED
from mal_trt.artifacts.parity import Verdict, check
from mal_trt.base.errors import MalTrtError
from mal_trt.base.gpu import find_gpus
from mal_trt.engines.build import Built
from mal_trt.engines.job import Job, listed
from mal_trt.engines.sparsity import sparse_kernels
from mal_trt.geometry.boxes import SizeClass

# Types by what the inspector's "Format/Datatype" says of them, the narrowest first.
TYPES = (
    ("fp8", r"fp8|float8"),
    ("int8", r"\bint8"),
    ("bf16", r"bf16|bfloat"),
    ("fp16", r"half|fp16"),
    ("fp32", r"float\b|fp32"),
)


class Tried(Protocol):
    """An engine that runs here. layers: what the engine inspector gives, JSON."""

    def run(self, image: np.ndarray, size: SizeClass) -> np.ndarray: ...

    def layers(self) -> str: ...

    def close(self) -> None: ...


# Opens an engine that was just built on this machine's GPU.
Open = Callable[[Built, Job], Tried]


def opener(say: Callable[[str], None]) -> Open | None:
    """How to run engines on this machine's first GPU; None where there is none, or, said why, it cannot be used."""
    if find_gpus().gpu is None:
        return None
    from mal_trt.backends.tensorrt import TensorRTBackend
    from mal_trt.cuda.open import open_driver

    try:
        open_driver().close()
    except MalTrtError as error:
        say(f"the engine is not tried on the GPU: {error}")
        return None
    return lambda built, job: TensorRTBackend(
        str(job.out), built.plan, built.manifest, open_driver(), job.flavor, onnx=job.onnx
    )


def runs_here(job: Job) -> bool:
    """Whether this machine's GPU is one of those the engine is for, and mal-trt one of the programs.

    What TensorRT-RTX builds "from 8.0 on" may yet be refused by a GPU that it does not name.
    """
    gpu = job.gpu
    if gpu is None or "VERSION_COMPATIBLE" in job.flags:
        return False
    if job.flavor.name == "tensorrt-rtx" and gpu.compute_capability not in listed(job.flavor):
        return False
    return any(covers(entry, gpu.compute_capability) for entry in job.runs_on)


def try_out(open_plan: Open, built: Built, job: Job, reference: Path) -> tuple[Built, Verdict | None]:
    """Run an engine on its model's parity crops, and let its manifest say what came of it.

    No verdict without a parity file. MalTrtError if the engine cannot be run at all.
    """
    tried = open_plan(built, job)
    try:
        verdict = check(tried.run, reference, job.contract, job.profiles[0].batch[2]) if reference.is_file() else None
        layers = tried.layers()
        found, kernels = precision(layers), sparse_kernels(layers)
    finally:
        tried.close()
    unchecked = {"status": UNCHECKED, "reason": f"{reference.name} is not beside the model"}
    manifest = replace(built.manifest, parity=verdict.document() if verdict is not None else unchecked)
    if found:
        manifest = replace(manifest, precision=found, precision_source="engine")
    if built.sparse is not None and kernels is not None:
        built = replace(built, sparse=replace(built.sparse, chosen=kernels))
    return replace(built, manifest=manifest), verdict


def precision(layers: str) -> dict[str, dict[str, int]]:
    """How many of an engine's layers, by kind as TensorRT fused them, take in which type, the narrowest of each.

    layers: JSON of the engine inspector. Empty if it does not tell types.
    """
    found: dict[str, Counter[str]] = {}
    try:
        document = json.loads(layers)
    except ValueError:
        return {}
    listed = document.get("Layers", []) if isinstance(document, dict) else []
    for layer in (entry for entry in listed if isinstance(entry, dict)):
        if kind := _type(layer.get("Inputs", [])):
            found.setdefault(str(layer.get("LayerType", "layer")), Counter())[kind] += 1
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _type(inputs: list[Any]) -> str:
    text = " ".join(str(entry.get("Format/Datatype", "")) for entry in inputs if isinstance(entry, dict))
    return next((name for name, pattern in TYPES if re.search(pattern, text, re.IGNORECASE)), "")
