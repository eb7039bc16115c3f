"""A model under `benchmark`: what it is, what was measured of it so far, and that as JSON-ready figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mal_trt.artifacts.manifest import manifest_path, read_manifest
from mal_trt.artifacts.models import resolve_model
from mal_trt.backends.choice import backend_of
from mal_trt.base.digest import file_sha256
from mal_trt.geometry.rle import RLE
from mal_trt.labelling.predictor import Predictor
from mal_trt.measure.timing import Sample, figures

Document = dict[str, Any]


@dataclass
class Subject:
    """A model and what was measured of it. backend: asked for. facts: what it is. failed: batch, or None for labelling,
    -> why; watts: the same -> mean of each round."""

    model: str | Path
    backend: str
    facts: Document
    batches: Sequence[int]
    clock: str = ""
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    rounds: list[Document] = field(default_factory=list)
    quality: Document = field(default_factory=dict)
    masks: dict[Any, RLE] = field(default_factory=dict)
    failed: dict[int | None, str] = field(default_factory=dict)
    watts: dict[int | None, list[float]] = field(default_factory=dict)

    def summary(self) -> Document:
        """JSON-ready: the facts, and all figures so far."""
        network = []
        for batch in self.batches:
            if batch in self.failed:
                network.append({"batch": batch, "error": self.failed[batch]})
            elif batch in self.samples:
                row = {"batch": batch, "clock": self.clock, **figures(self.samples[batch], batch)}
                if self.facts["head"] != "dynamic" and not self.facts["sizes"]:
                    del row["runs_by_size"], row["boxes_per_s_by_size"]
                network.append(self._with_power(row, batch))
        return {**self.facts, "network": network, "label": self._label(), "quality": self.quality or None}

    def _label(self) -> Document | None:
        if None in self.failed:
            return {"error": self.failed[None]}
        if not self.rounds:
            return None
        first, seconds = self.rounds[0], median(done["seconds"] for done in self.rounds)
        row = {
            "clock": "wall clock",
            "boxes": first["boxes"],
            "pictures": first["pictures"],
            "skipped": first["skipped"],
            "boxes_per_s": first["boxes"] / seconds,
            "pictures_per_s": first["pictures"] / seconds,
            "seconds": [done["seconds"] for done in self.rounds],
            "whole_seconds": [done["whole_seconds"] for done in self.rounds],
        }
        return self._with_power(row, None)

    def _with_power(self, row: Document, batch: int | None) -> Document:
        """With `watts` and `boxes_per_joule`, where watts were measured."""
        if not self.watts.get(batch):
            return row
        watts = fmean(self.watts[batch])
        return {**row, "watts": watts, "boxes_per_joule": row["boxes_per_s"] / watts if watts > 0 else None}


def model_facts(model: str | Path, predictor: Predictor) -> Document:
    """What a model is, once opened; of an engine also what its manifest says about how it was built."""
    path = resolve_model(model, predictor.weights)
    return {
        "model": str(model),
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        "precision": predictor.precision,
        "backend": backend_of(predictor.provider),
        "provider": predictor.provider,
        "input_size": predictor.contract.input_size,
        "sizes": predictor.contract.sizes,
        "head": predictor.contract.head,
        "refine": predictor.refine,
        **_engine_facts(path),
    }


def _engine_facts(path: Path) -> Document:
    """How an engine was built, by its manifest; nothing for an ONNX file."""
    if not manifest_path(path).is_file():
        return {}
    manifest = read_manifest(path)
    return {
        "engine": {
            "flavor": manifest.flavor,
            "version": manifest.version,
            "gpu": manifest.gpu,
            "compute_capabilities": list(manifest.compute_capabilities),
            "precision": manifest.precision,
            "flags": list(manifest.flags),
            "opt_level": manifest.opt_level,
            "onnx_sha256": manifest.onnx_sha256,
            "parity": manifest.parity,
        }
    }
