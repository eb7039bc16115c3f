"""The typed ONNX file an engine is built from: the model as given, or made here with the calibration package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import replaced
from mal_trt.formats.boxes import Source

PRECISIONS = ("fp32", "fp16", "int8", "fp8")
WIDE_ATTENTION = "fp16 with fp32 attention"
# What is tried next when the engine of a precision fails its check.
LADDER = {
    "int8": ("fp16", WIDE_ATTENTION, "fp32"),
    "fp8": ("fp16", WIDE_ATTENTION, "fp32"),
    "fp16": (WIDE_ATTENTION, "fp32"),
    "fp32": (),
}


def check_precision(model: str | Path, contract: Contract, precision: str, sources: Sequence[Source]) -> None:
    """InputError if that precision cannot be made of the model."""
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    if precision == contract.precision:
        return
    if contract.precision != "fp32":
        raise InputError(
            f"--precision {precision}: {model} is {contract.precision} already; give the FP32 model it was made from"
        )
    if precision in ("int8", "fp8") and not sources:
        raise InputError(f"--precision {precision}: ranges are measured on real crops; give --boxes too")


def typed_path(out: Path, precision: str) -> Path:
    """Where the typed ONNX file of an engine goes: `model.engine.fp16.onnx` for `model.engine`."""
    return out.with_name(f"{out.name}.{precision.replace(' ', '-')}.onnx")


def typed_model(
    model: str | Path,
    precision: str,
    out: Path,
    sources: Sequence[Source],
    say: Callable[[str], None],
    progress: bool = False,
) -> Path:
    """The ONNX file of that precision: `model` itself if it is, or else made of it and written beside `out`."""
    source = resolve_model(model)
    if read_contract(source).precision == precision:
        return source
    path = typed_path(out, precision)
    if precision == "fp16":
        from mal_trt.calibration.convert import convert

        convert(source, path, sources=sources, say=say)
    elif precision == WIDE_ATTENTION:
        _wide_attention(source, path)
    else:
        say(f"calibrating {precision}")
        _calibrated(source, path, precision, sources, progress)
    say(f"wrote {path}")
    return path


def _calibrated(source: Path, out: Path, precision: str, sources: Sequence[Source], progress: bool) -> None:
    """Calibrate, with errors whose advice a build can follow: it lacks most of the options of `mal-trt calibrate`."""
    from mal_trt.calibration.activations import BeyondHalf
    from mal_trt.calibration.calibrate import calibrate
    from mal_trt.calibration.sample import TooFewBoxes
    from mal_trt.calibration.settings import CalibrationSettings

    try:
        calibrate(source, out, sources, CalibrationSettings(precision=precision), progress=progress)
    except TooFewBoxes as error:
        raise InputError(
            f"{error.found} usable boxes, {error.wanted} wanted to calibrate {precision}: give more pictures and "
            "boxes, or make the model with `mal-trt calibrate` and fewer --crops and --check-crops first"
        ) from None
    except BeyondHalf as error:
        raise RunError(
            f"{error.what}; make the model with `mal-trt calibrate --precision {precision} --exclude {error.layer}` "
            "first"
        ) from None


def _wide_attention(source: Path, out: Path) -> None:
    """FP16 with the products of computed tensors, attention's own, left in FP32."""
    from mal_trt.calibration.activations import maxima
    from mal_trt.calibration.convert import half_contract
    from mal_trt.calibration.graph import check_graph, fold_constants, load_onnx, set_contract
    from mal_trt.calibration.half import to_half, too_wide
    from mal_trt.calibration.output import save
    from mal_trt.calibration.parity_crops import parity_batches

    proto, contract, path = load_onnx(source)
    folded = fold_constants(proto)
    weights = {tensor.name for tensor in folded.graph.initializer}
    attention = [n.name for n in folded.graph.node if n.op_type == "MatMul" and weights.isdisjoint(n.input)]
    found = maxima(folded, contract, parity_batches(path, contract))
    half = to_half(folded, found, attention)
    set_contract(half, half_contract(contract, (*too_wide(folded, found), *attention)))
    check_graph(half)
    with replaced(out) as part:
        save(half, part)
