"""Chooses the masker: crops and masks are made beside the network, unless asked for elsewhere."""

from __future__ import annotations

from mal_trt.backends import DeviceBackend
from mal_trt.base.errors import InputError
from mal_trt.labelling.cpu_masker import CpuMasker
from mal_trt.labelling.masker import Masker
from mal_trt.labelling.predictor import Predictor

CROPS = ("auto", "cpu", "gpu")
DECODE = ("cpu", "gpu", "scaled")


def open_masker(predictor: Predictor, crops: str = "auto", decode: str = "cpu") -> Masker:
    """crops: where crops and masks are made, "cpu", "gpu", or "auto": beside the network. decode: where pictures are
    decoded, "cpu" or "gpu" (JPEG, with nvImageCodec); "scaled": by the processor, smaller where boxes are large.
    InputError if they cannot be."""
    for name, value, choices in (("crops", crops, CROPS), ("decode", decode, DECODE)):
        if value not in choices:
            raise InputError(f"{name} {value}: expected one of {', '.join(choices)}")
    on_device = isinstance(predictor.backend, DeviceBackend)
    for name, value in (("crops", crops), ("decode", decode)):
        if value == "gpu" and not on_device:
            raise InputError(f"{name} gpu: the model runs on {predictor.provider}, not on a GPU; use --{name} cpu")
        if value == "gpu" and predictor.tight:
            raise InputError(f"{name} gpu: masks of --threshold tight are made on the CPU; use --{name} cpu")
    if decode == "gpu" and crops == "cpu":
        raise InputError("decode gpu: its pictures stay on the GPU; leave out --crops cpu")
    if crops == "cpu" or predictor.tight or not on_device:
        return CpuMasker(predictor, decode == "scaled")
    if decode == "scaled":
        raise InputError("decode scaled: the GPU cuts crops from whole pictures; add --crops cpu, or leave it out")
    from mal_trt.labelling.gpu_masker import GpuMasker

    return GpuMasker(predictor, decode)
