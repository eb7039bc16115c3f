"""Runs of a graph whose inner values are wanted: the input spectra of its layers, and its largest values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

from mal_trt.artifacts.contract import Contract
from mal_trt.base.errors import RunError
from mal_trt.calibration.graph import expose, value_types
from mal_trt.calibration.observe import Spectrum
from mal_trt.calibration.quantize import Layer
from mal_trt.calibration.sample import CropBatch


@dataclass(frozen=True)
class Measured:
    """Spectra of the layers' inputs by layer, the crops they come from, and the boxes that gave none."""

    spectra: Mapping[str, Spectrum]
    crops: int
    unreadable: int
    blank: int


def spectra(
    model: onnx.ModelProto,
    contract: Contract,
    layers: Sequence[Layer],
    batches: Iterable[CropBatch],
    threads: int | None = None,
    done: Callable[[int], None] = lambda crops: None,
) -> dict[str, Spectrum]:
    """Spectrum of each layer's input over all crops, by the layer's name.

    done: called with the number of crops of each batch. RunError that names the layer on NaN, BeyondHalf if an input
    exceeds FP16.
    """
    inputs = {layer.input: layer.name for layer in layers}
    probe = Probe(model, contract, list(inputs), threads)
    found = {value: Spectrum() for value in inputs}
    for batch in batches:
        for value, values in probe.run(batch).items():
            found[value].add(values, inputs[value])
        done(len(batch.spots))
    for value, spectrum in found.items():
        _check_range(inputs[value], spectrum)
    return {layer.name: found[layer.input] for layer in layers}


def sides(
    model: onnx.ModelProto,
    contract: Contract,
    values: Mapping[str, str],
    batches: Iterable[CropBatch],
    threads: int | None = None,
    done: Callable[[int], None] = lambda crops: None,
) -> dict[str, tuple[Spectrum, Spectrum]]:
    """Spectra of what lies below and above zero, over all crops, of each value. values: the node that takes or gives
    it, by the value's name. `done` and errors as of `spectra`."""
    probe = Probe(model, contract, list(values), threads)
    found = {value: (Spectrum(), Spectrum()) for value in values}
    for batch in batches:
        for value, seen in probe.run(batch).items():
            below, above = found[value]
            if seen.min(initial=0.0) < 0:
                below.add(np.minimum(seen, 0), values[value])
            above.add(np.maximum(seen, 0), values[value])
        done(len(batch.spots))
    for value, both in found.items():
        for spectrum in both:
            _check_range(values[value], spectrum)
    return found


class BeyondHalf(RunError):
    """A layer cannot be quantised, because inputs of it exceed FP16. layer: its name. what: the message without
    advice."""

    def __init__(self, layer: str, overflows: int) -> None:
        self.layer = layer
        self.what = (
            f"{layer}: {overflows} of its inputs exceed FP16 on the calibration crops; this layer cannot be quantised"
        )
        super().__init__(f"{self.what}, leave it out with --exclude")


def _check_range(layer: str, spectrum: Spectrum) -> None:
    if spectrum.overflows:
        raise BeyondHalf(layer, spectrum.overflows)


def maxima(
    model: onnx.ModelProto, contract: Contract, batches: Iterable[CropBatch], threads: int | None = None
) -> dict[str, float]:
    """Largest absolute value of every FP32 value a node gives; RunError that names the first node to give NaN."""
    makers = {name: node.name for node in model.graph.node for name in node.output}
    types = value_types(model)
    names = [name for name in makers if types.get(name) == TensorProto.FLOAT]
    probe = Probe(model, contract, names, threads)
    found = dict.fromkeys(names, 0.0)
    for batch in batches:
        for name, values in probe.run(batch).items():
            largest = float(np.abs(values).max(initial=0.0))
            if np.isnan(largest):
                raise RunError(
                    f"{makers[name]}: the model gives NaN there on a real crop; it is broken already in FP32"
                )
            found[name] = max(found[name], largest)
    return found


class Probe:
    """A session that gives out inner values of a graph, on the CPU."""

    def __init__(
        self, model: onnx.ModelProto, contract: Contract, names: Sequence[str], threads: int | None = None
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        self._names, self._contract = list(names), contract
        try:
            self._session = ort.InferenceSession(
                expose(model, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise RunError(f"ONNX Runtime cannot load the graph with its inner values given out: {error}") from error

    def run(self, batch: CropBatch) -> dict[str, np.ndarray]:
        """The wanted values for a batch of crops."""
        if not self._names:  # ONNX Runtime would give all outputs
            return {}
        feeds = {"image": batch.image}
        if self._contract.head == "dynamic":
            grid = self._contract.grid(batch.size)
            feeds["head_grid"] = np.zeros((1, 1, grid, grid), np.uint8)
        return dict(zip(self._names, self._session.run(self._names, feeds), strict=True))
