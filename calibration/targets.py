"""What a model is quantised for: what is measured, how ranges are read from it, and who places the pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import onnx

from mal_trt.artifacts.contract import CPU_TARGET, Contract
from mal_trt.calibration import activations
from mal_trt.calibration.graph import set_contract
from mal_trt.calibration.observe import Spectrum
from mal_trt.calibration.processor import LEVELS, Range, quantize_for_processor, ranged
from mal_trt.calibration.quantize import TYPES, Layer, quantize
from mal_trt.calibration.sample import CropBatch
from mal_trt.calibration.settings import CalibrationSettings

ABOVE, BELOW = "{}/above", "{}/below"  # the two sides of a value's spectrum


class Target(Protocol):
    """How layers are quantised, once their ranges are known. rest: precision of the layers that are left out."""

    rest: str

    def quantize(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
        """A copy of the graph with these layers quantised."""
        ...

    def range(self, layer: Layer) -> float:
        """Largest absolute input of a layer that is kept."""
        ...

    def largest(self, layer: Layer) -> float:
        """Largest absolute input of a layer that was seen."""
        ...


def spectra(
    model: onnx.ModelProto,
    contract: Contract,
    chosen: Sequence[Layer],
    batches: Iterable[CropBatch],
    settings: CalibrationSettings,
    done: Callable[[int], None] = lambda crops: None,
) -> dict[str, Spectrum]:
    """What the ranges of a target come from: the spectra of the layers' inputs by layer, or for a processor those of
    both sides of all values that become 8-bit, by value. `done` and errors: see `activations`."""
    if settings.target != CPU_TARGET:
        return activations.spectra(model, contract, chosen, batches, settings.threads, done)
    found = activations.sides(model, contract, ranged(model, chosen), batches, settings.threads, done)
    below = {BELOW.format(value): sides[0] for value, sides in found.items()}
    return below | {ABOVE.format(value): sides[1] for value, sides in found.items()}


def target_of(
    model: onnx.ModelProto,
    contract: Contract,
    chosen: Sequence[Layer],
    spectra: Mapping[str, Spectrum],
    settings: CalibrationSettings,
) -> Target:
    """The target that the settings name, with ranges from these spectra."""
    if settings.target == CPU_TARGET:
        return _Processor(contract, ranged(model, chosen), spectra, settings.observer)
    return _TensorRT(chosen, spectra, settings)


class _TensorRT:
    rest = "fp16"

    def __init__(self, chosen: Sequence[Layer], spectra: Mapping[str, Spectrum], settings: CalibrationSettings) -> None:
        self._kind, self._spectra = settings.precision, spectra
        largest = TYPES[settings.precision][1]
        self._ranges = {layer.name: spectra[layer.name].range(settings.observer, largest) for layer in chosen}

    def quantize(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
        return quantize(model, layers, self._ranges, self._kind)

    def range(self, layer: Layer) -> float:
        return self._ranges[layer.name]

    def largest(self, layer: Layer) -> float:
        return self._spectra[layer.name].largest


class _Processor:
    rest = "fp32"

    def __init__(
        self, contract: Contract, values: Iterable[str], spectra: Mapping[str, Spectrum], observer: str
    ) -> None:
        self._contract = replace(contract, extra=contract.extra | {"target": CPU_TARGET})
        self._sides = {value: (spectra[BELOW.format(value)], spectra[ABOVE.format(value)]) for value in values}
        self._ranges = {value: two_sided(*sides, observer) for value, sides in self._sides.items()}

    def quantize(self, model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
        quantized = quantize_for_processor(model, layers, self._ranges)
        set_contract(quantized, self._contract)  # with it the check runs the kernels that labelling runs
        return quantized

    def range(self, layer: Layer) -> float:
        low, high = self._ranges[layer.input]
        return max(-low, high)

    def largest(self, layer: Layer) -> float:
        return max(side.largest for side in self._sides[layer.input])


def two_sided(below: Spectrum, above: Spectrum, observer: str) -> Range:
    """Least and largest value kept. Each side has a part of the levels, by the largest value seen there."""
    whole = below.largest + above.largest
    if not whole:
        return 0.0, 0.0
    low, high = (side.range(observer, max(1.0, LEVELS * side.largest / whole)) for side in (below, above))
    return -low, high
