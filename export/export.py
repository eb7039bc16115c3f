"""`mal-trt export`: a checkpoint becomes one self-contained ONNX file that was compared with PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from mal_trt.artifacts.contract import INPUT_DTYPES, METADATA_KEY, MOST_MARGIN, REFINE, WEIGHTS, Contract
from mal_trt.artifacts.parity_file import parity_bytes, parity_path
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import not_written, replaced
from mal_trt.base.version import __version__
from mal_trt.calibration.convert import HalfReport, convert
from mal_trt.calibration.graph import OPSETS, check_graph
from mal_trt.calibration.output import check_out
from mal_trt.calibration.sparsity import sparse_layers
from mal_trt.export.graph import ExportGraph, trace
from mal_trt.export.parity import HEADS, Parity, ParityReference, compare, difference_and_span, parity_crops, reference
from mal_trt.export.weights import round_weights, store_half
from mal_trt.formats.boxes import BoxesLike
from mal_trt.geometry.boxes import TEST_MARGIN_RATE, SizeClass
from mal_trt.training.checkpoint import Checkpoint, load_into, read_checkpoint
from mal_trt.training.exported import TRIMMED
from mal_trt.training.network import MALNetwork, NetworkConfig, build_network, shown_sizes
from mal_trt.training.pyramid import is_pyramid
from mal_trt.training.sparse import META

MOST_SIDE = 4096  # pixels of a crop; far larger ones take more memory than any machine has
PROTOBUF_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote. parity: of the FP32 graph with PyTorch. rounding: how far FP16 weights moved the logits,
    relative to their range (or None). half: of the FP16 model with the FP32 one (or None)."""

    path: Path
    parity_path: Path
    contract: Contract
    file_bytes: int
    nodes: int
    parity: Parity
    rounding: float | None
    half: HalfReport | None


def export_onnx(
    checkpoint: Path | str,
    out: Path | str,
    *,
    input_size: int | None = None,
    sizes: Sequence[int] | None = None,
    input_dtype: str = "uint8",
    weights: str = "student",
    head: str = "dynamic",
    opset: int = 20,
    arch: str | None = None,
    precision: str = "fp32",
    fp16_weights: bool = False,
    thresholds: float | Sequence[float] | None = None,
    margin: float | None = None,
    refine: str | None = None,
    parity_images: Path | str | None = None,
    parity_boxes: BoxesLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> ExportReport:
    """Turn a checkpoint into an ONNX file that was compared with PyTorch; nothing is left behind if that fails.

    - `checkpoint`: of mal-trt, TAO or NVlabs MAL. `out`: the .onnx file.
    - `input_size`: side of the crops in pixels. None: as it was trained, or 512 if the file does not say.
    - `sizes`: sides of the crops of small, medium and large boxes, for a network that was trained at these. None: as it
      was trained; a network that was trained at several gets one side alone by `input_size`.
    - `input_dtype`: of the input `image`, "uint8" or "float32".
    - `weights`: "student", "teacher", or "mixed": both, with the mean of their logits.
    - `head`: "dynamic": the grid of the mask head follows the size of the box, through the input `head_grid`. "small",
      "medium", "large": that grid alone. "fixed": for a network that has only one.
    - `precision`: "fp32", or "fp16": a strongly typed graph that must keep the masks. `fp16_weights`: weights stored in
      FP16, computed in FP32.
    - `opset`: version of the ONNX operators. `arch`: the network, if the file does not tell it.
    - `thresholds`: one or three mask probabilities. `margin`: how much crops show around their boxes; a crop is
      1 + margin / 2 times as long as its box. None: what training validated with, or MAL's 0.1 and 0.6.
    - `refine`: "color" if labelling is to sharpen masks by colour unless an option says otherwise, or "none". None: as
      the checkpoint says of the network that it was pruned from, or "none".
    - `parity_images`, `parity_boxes`: pictures and boxes, in any format that is read, to compare on instead of the
      crops in the package. Without boxes: the middle of each picture.
    - `say`: called with a line on each step.

    InputError for a checkpoint or an option that cannot be used, RunError if the network cannot be traced, or if the
    ONNX file does not give PyTorch's logits or, in FP16, the masks of FP32.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    _check_options(out, input_dtype, weights, head, opset, precision, refine)
    if precision == "fp16" and fp16_weights:
        raise InputError("--fp16-weights is for --precision fp32; in an FP16 model the weights are FP16 anyway")
    say(f"reading {checkpoint.name}")
    source = read_checkpoint(checkpoint)
    config = _config(source, input_size, sizes, head, arch)
    networks = _networks(source, config, weights)
    _check_size(networks, fp16_weights)
    contract = _contract(source, config, input_dtype, head, weights, fp16_weights)
    contract = replace(
        contract,
        thresholds=_thresholds(contract.thresholds if thresholds is None else thresholds),
        margin_rate=_margin(contract.margin_rate if margin is None else margin),
        refine=refine or contract.refine,
    )
    say("running PyTorch on the parity crops")
    crops = parity_crops(contract, parity_images, parity_boxes)
    expected, rounding = _references(networks, crops, fp16_weights)
    say("tracing")
    grid = None if contract.head == "dynamic" or contract.sizes else config.grid(crops[0][1][0])
    model = trace(ExportGraph(networks, grid), config.crop_size, input_dtype, opset, contract.head == "dynamic")
    if fp16_weights:
        store_half(model)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    check_graph(model)
    _check_zeros(model, networks, source)
    say("comparing ONNX Runtime with PyTorch")
    half = None
    if precision == "fp32":
        parity = _write(model, out, expected)
    else:
        parity, half = _write_half(model, out, expected, parity_images, parity_boxes, say)
        contract = replace(contract, precision="fp16")
    size = out.stat().st_size
    return ExportReport(out, parity_path(out), contract, size, len(model.graph.node), parity, rounding, half)


def _contract(
    source: Checkpoint, config: NetworkConfig, input_dtype: str, head: str, weights: str, fp16_weights: bool
) -> Contract:
    """What the FP32 model says of itself; how its masks are made as the checkpoint says."""
    return Contract(
        arch=config.arch,
        layout=config.layout,
        input_size=config.crop_size,
        sizes=config.sizes,
        input_dtype=input_dtype,
        thresholds=source.meta.get("thresholds", (0.1,)),
        margin_rate=source.meta.get("test_margin", TEST_MARGIN_RATE),
        refine=str(source.meta.get("refine", "none")),
        adjust_scale=config.adjust_scale,
        head=head if config.adjust_scale else "fixed",
        weights=weights,
        source=source.path.name,
        source_sha256=file_sha256(source.path),
        producer=f"mal-trt {__version__}, torch {torch.__version__.split('+')[0]}",
        extra=_extra(source, config, fp16_weights),
    )


def _references(
    networks: dict[str, MALNetwork], crops: Sequence[tuple[np.ndarray, tuple[SizeClass, ...]]], fp16_weights: bool
) -> tuple[list[ParityReference], float | None]:
    """PyTorch's logits of the crops. With `fp16_weights` the weights are rounded in place before, and the second is how
    far that moved the logits at most, relative to their range."""
    exact = [reference(networks, *some) for some in crops]
    if not fp16_weights:
        return exact, None
    for network in networks.values():
        round_weights(network)
    rounded = [reference(networks, *some) for some in crops]
    moved = [
        difference_and_span(one.logits["logits"], other.logits["logits"])
        for one, other in zip(rounded, exact, strict=True)
    ]
    return rounded, max(most / (span or 1.0) for most, span in moved)


def _write(model: onnx.ModelProto, out: Path, expected: Sequence[ParityReference]) -> Parity:
    """Write the model and its parity file under temporary names, compare, and only then give them their names."""
    with replaced(out) as temporary, replaced(parity_path(out)) as parity_temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        parity = compare(temporary, expected)
        parity_temporary.write_bytes(parity_bytes(expected))
    return parity


def _write_half(
    model: onnx.ModelProto,
    out: Path,
    expected: Sequence[ParityReference],
    images: Path | str | None,
    boxes: BoxesLike | None,
    say: Callable[[str], None],
) -> tuple[Parity, HalfReport]:
    """Write the FP16 model made of an FP32 one, which is needed only meanwhile, if both pass their checks."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.stem}.", dir=out.parent)
    except OSError as error:
        raise not_written(out, error) from None
    with folder:
        single = Path(folder.name) / "fp32.onnx"
        parity = _write(model, single, expected)
        images = None if boxes is None else images  # then the crops of the parity file
        return parity, convert(single, out, images=images, boxes=boxes, say=say)


def _extra(source: Checkpoint, config: NetworkConfig, fp16_weights: bool) -> dict[str, Any]:
    """Where the encoder's first weights came from, if that is known; what pruning did; how the weights are stored."""
    extra: dict[str, Any] = {"fp16_weights": True} if fp16_weights else {}
    extra |= {name: source.meta[name] for name in ("pretrained", META) if source.meta.get(name)}
    if config.trimmed:
        shape = ("depth", "mask_head_num_convs", "mask_head_hidden_channel", "mask_head_out_channel", "trimmed")
        extra[TRIMMED] = {name: getattr(config, name) for name in shape}
    return extra


def _check_zeros(model: onnx.ModelProto, networks: Iterable[str], source: Checkpoint) -> None:
    """RunError if a layer that the checkpoint says is 2:4 sparse is not so in the graph."""
    found = {name.partition("/")[0]: sparse for name, sparse in sparse_layers(model).items()}
    wanted = [f"{part}.{name}" for part in networks for name in source.meta.get(META, ())]
    lost = [name for name in wanted if not found.get(name)]
    if lost:
        raise RunError(
            f"{source.path}: {len(lost)} of {len(wanted)} sparse layers lost their zeros, such as {lost[0]}; nothing "
            "was written, prune it again"
        )


def _check_options(
    out: Path, input_dtype: str, weights: str, head: str, opset: int, precision: str, refine: str | None
) -> None:
    choices = (
        ("--input-dtype", input_dtype, INPUT_DTYPES),
        ("--weights", weights, WEIGHTS),
        ("--head", head, ("dynamic", *HEADS, "fixed")),
        ("--refine", refine or REFINE[0], REFINE),
        ("--precision", precision, ("fp32", "fp16")),
        ("--opset", opset, OPSETS),
    )
    for option, value, allowed in choices:
        if value not in allowed:
            raise InputError(f"{option} {value}: expected one of {', '.join(map(str, allowed))}")
    check_out(out)


def _config(
    source: Checkpoint, input_size: int | None, sizes: Sequence[int] | None, head: str, arch: str | None
) -> NetworkConfig:
    """The network to build: the checkpoint's, at the export's crop size or sizes."""
    if input_size is not None and input_size > MOST_SIDE:
        raise InputError(f"--input-size {input_size}: expected {MOST_SIDE} pixels at most")
    if source.student is None and source.teacher is None:
        raise InputError(f"{source.path}: holds only an encoder (pretraining), no mask head; train from it first")
    assert source.config is not None  # a file with a whole network tells its configuration
    config = source.config
    if arch is not None and arch != config.arch:
        if config.layout == "pyramid" or is_pyramid(arch):  # whose checkpoints say what they are
            raise InputError(f"--arch {arch}: {source.path} is a {config.arch}; leave --arch out")
        layout = config.layout if arch.startswith("vit-") else "timm"
        config = replace(config, arch=arch, layout=layout)
    if head == "fixed":
        config = replace(config, adjust_scale=False)
    elif not config.adjust_scale and head != "dynamic":
        raise InputError(f"--head {head}: this checkpoint does not adjust its scale; leave --head out")
    if input_size is not None and sizes is not None:
        raise InputError("--input-size and --sizes: give one of them")
    if sizes is not None:
        if len(sizes) != 3:
            raise InputError(f"--sizes {','.join(map(str, sizes))}: expected one each of small, medium and large boxes")
        known = set(config.sizes or (config.crop_size,))
        if strange := [side for side in sizes if side not in known]:
            raise InputError(
                f"--sizes: {source.path} was trained at {', '.join(map(str, sorted(known)))}, not at {strange[0]}; "
                f"train it at these with `mal-trt train --from {source.path} --sizes {shown_sizes(sizes)}`"
            )
        return replace(config, crop_size=sizes[-1], sizes=(sizes[0], sizes[1], sizes[2]))
    if input_size is not None or head in HEADS:
        side = config.side(HEADS[head]) if head in HEADS else config.crop_size
        return replace(config, crop_size=side if input_size is None else input_size, sizes=None)
    return config


def _networks(source: Checkpoint, config: NetworkConfig, weights: str) -> dict[str, MALNetwork]:
    """{"student": ..., "teacher": ...}: the parts asked for, loaded, in evaluation mode."""
    parts = ("student", "teacher") if weights == "mixed" else (weights,)
    networks = {}
    for part in parts:
        if getattr(source, part) is None:
            other = "student" if part == "teacher" else "teacher"
            raise InputError(f"{source.path}: holds no {part}, only the {other}; use --weights {other}")
        networks[part] = build_network(config).eval()
        load_into(networks[part], source, part)
    return networks


def _check_size(networks: dict[str, MALNetwork], fp16_weights: bool) -> None:
    """An ONNX file is one protobuf message, which cannot pass 2 GiB."""
    used = sum(p.numel() for network in networks.values() for p in network.parameters())
    if used * (2 if fp16_weights else 4) > PROTOBUF_LIMIT - 2**25:
        hint = "export one of student and teacher" if fp16_weights else "add --fp16-weights"
        raise InputError(f"{used / 1e6:.0f} million weights do not fit an ONNX file (2 GiB); {hint}")


def _thresholds(given: float | Sequence[float]) -> tuple[float, float, float]:
    values = [float(v) for v in ([given] if isinstance(given, (int, float)) else given)]
    if len(values) not in (1, 3) or not all(0 <= v < 1 for v in values):
        raise InputError(f"thresholds {values}: expected one or three numbers from 0 to below 1")
    small, medium, large = values * 3 if len(values) == 1 else values
    return small, medium, large


def _margin(value: float) -> float:
    if not 0 <= value <= MOST_MARGIN:
        raise InputError(f"margin {value}: expected a number from 0 to {MOST_MARGIN}")
    return float(value)
