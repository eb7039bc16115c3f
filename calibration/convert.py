"""FP32 ONNX file to FP16: made by `half`, compared on crops, and written only if the masks stay the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import check_apart
from mal_trt.calibration.activations import maxima
from mal_trt.calibration.gate import Check, drop_of
from mal_trt.calibration.graph import check_graph, fold_constants, load_onnx, set_contract
from mal_trt.calibration.half import to_half, too_wide
from mal_trt.calibration.output import check_out, publish, save, scratch
from mal_trt.calibration.parity_crops import parity_batches, parity_of
from mal_trt.calibration.sample import CropBatch, crops, draw
from mal_trt.formats.boxes import BoxesLike, Source

MOST_DROP = 0.001  # change of mIoU against drawn masks
MOST_CHANGE = 0.005  # how far the mean IoU with the FP32 model's masks may be from 1, where too few masks are drawn
CROPS = 64
RANGE_CROPS = 32  # every inner value of the graph is looked at, which takes memory
BATCH = 8


@dataclass(frozen=True)
class HalfReport:
    """What a conversion wrote. kept: nodes left in FP32 for their range. agreement: see `Agreement.summary`."""

    path: Path
    parity_path: Path
    file_bytes: int
    kept: tuple[str, ...]
    agreement: dict[str, Any]


def convert(
    model: Path | str,
    out: Path | str,
    *,
    images: Path | str | None = None,
    boxes: BoxesLike | None = None,
    sources: Sequence[Source] = (),
    threads: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> HalfReport:
    """A typed FP16 model from an FP32 model of `mal-trt export` (or "bundled").

    images, boxes: boxes of any format that is read, with drawn masks or without, to compare on instead of the crops in
    the model's parity file; pictures None where the boxes say where they are. sources: further pairs of these.
    threads: of the processor. say: called with a line on each step.

    RunError, and nothing written, if mIoU against the drawn masks moves by more than 0.001, or, where fewer than half
    of the boxes have one, the mean IoU with the FP32 model's masks is below 0.995. InputError for what cannot be used.
    """
    out = Path(out)
    check_out(out)
    if images is not None and boxes is None:
        raise InputError("pictures to compare on without boxes: give both or neither")
    proto, contract, source = load_onnx(model)
    check_apart([out], [source])
    if contract.precision != "fp32":
        raise InputError(f"{source}: already {contract.precision}; give the FP32 model it was made from")
    batches = _batches(source, contract, [*sources, *([] if boxes is None else [(images, boxes)])])
    say("measuring ranges")
    half, kept = half_of(proto, contract, batches, threads)
    set_contract(half, half_contract(contract, kept))
    check_graph(half)
    parity = parity_of(source, contract, batches)
    say(f"comparing FP16 with FP32 on {sum(len(batch.spots) for batch in batches)} crops")
    with scratch(out, "check") as trial, scratch(out, "fp16") as part:
        agreement = Check(source, batches, trial, threads).agreement(half)
        limit = MOST_DROP if agreement["miou"] else MOST_CHANGE
        if not abs(drop_of(agreement)) <= limit:
            raise RunError(
                f"FP16 changes the masks: {describe_drop(agreement)}, limit {limit:g}; nothing was written, "
                "stay with FP32"
            )
        save(half, part)
        publish(part, out, parity)
    return HalfReport(out, parity_path(out), out.stat().st_size, kept, agreement)


def half_of(
    model: onnx.ModelProto, contract: Contract, batches: list[CropBatch], threads: int | None = None
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The typed FP16 graph of an FP32 one, and the nodes kept in FP32 because values on the crops run too high."""
    folded = fold_constants(model)
    step = max(1, sum(len(batch.spots) for batch in batches) // RANGE_CROPS)
    found = maxima(folded, contract, batches[::step], threads)
    return to_half(folded, found), too_wide(folded, found)


def half_contract(contract: Contract, kept: tuple[str, ...]) -> Contract:
    """The contract of the FP16 model."""
    extra = {key: value for key, value in contract.extra.items() if key != "fp16_weights"}
    return replace(contract, precision="fp16", extra=extra | ({"fp32_nodes": list(kept)} if kept else {}))


def describe_drop(agreement: Mapping[str, Any], whose: str = "the FP32 model's") -> str:
    """The figure that `drop_of` is taken from, in words. whose: masks it was compared with."""
    if agreement["not_finite"]["count"]:
        return f"logits of {agreement['not_finite']['count']} boxes are not finite"
    if agreement["miou"] is not None:
        figures = agreement["miou"]
        return f"mIoU {figures['other']['all']:.4f}, was {figures['reference']['all']:.4f}"
    return f"mean IoU {agreement['mask_iou']['mean']:.4f} with {whose} masks"


def _batches(source: Path, contract: Contract, sources: Sequence[Source]) -> list[CropBatch]:
    if not sources:
        return parity_batches(source, contract)
    found = list(crops(draw(sources, CROPS), contract, BATCH))
    if not found:
        raise InputError(f"{', '.join(str(boxes) for _, boxes in sources)}: no picture could be read")
    return found
