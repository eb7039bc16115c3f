"""What a pruning begins with: the dense network, its answers on real crops, and the boxes they are cut from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.models import is_bundled, resolve_model
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.outputs import check_apart, check_file
from mal_trt.calibration.output import report_path
from mal_trt.calibration.sample import CropBatch, Spot, crops, draw_both, source_files
from mal_trt.export.export import export_onnx
from mal_trt.export.prune_recovery import DENSE
from mal_trt.export.prune_settings import PruneSettings
from mal_trt.formats.boxes import Source, boxes_sha256
from mal_trt.training.checkpoint import load_into, save_checkpoint
from mal_trt.training.exported import read_start
from mal_trt.training.network import MALNetwork, build_network
from mal_trt.training.sparse import META, sparse_candidates
from mal_trt.training.widths import widths

ENDINGS = (".pth", ".pt")
INHERITED = ("thresholds", "test_margin", "refine", "pretrained")  # what a result takes over from the dense network
# What may be different when a recovery goes on.
FREE = ("max_miou_drop", "threads", "device", "preload")


@dataclass(frozen=True)
class PreparedPruning:
    """network: the dense one, evaluated in FP32. meta: how its masks are made. learn: boxes that scores come from;
    held: those that the result is checked on. key: differs for every other pruning. warnings: see `draw`."""

    path: Path
    network: MALNetwork
    meta: dict[str, Any]
    learn: list[Spot]
    held: list[Spot]
    key: str
    warnings: list[str]


def prepare(
    model: Path | str,
    out: Path,
    sources: Sequence[Source],
    settings: PruneSettings,
    annotations: Source | None,
    weights: str,
) -> PreparedPruning:
    """Read and check all that a pruning needs; InputError for what cannot be used. Nothing is written."""
    check_file(out, ENDINGS)
    check_file(report_path(out))
    if not sources:
        raise InputError("nothing says the boxes: give --boxes; networks are pruned and checked on real crops")
    if weights not in ("student", "teacher"):
        raise InputError(f"--weights {weights}: one network is pruned at a time; give student or teacher")
    source = read_start(model)
    file = resolve_model(model) if is_bundled(model) else Path(model)
    given = [*sources, *([] if annotations is None else [annotations])]
    check_apart([out, report_path(out)], [file, *source_files(given)])
    if source.config is None or source.backbone is not None:
        raise InputError(f"{model}: holds only an encoder, no mask head; train from it first, then prune")
    if source.meta.get(META):
        raise InputError(f"{model}: is 2:4 sparse already; prune the dense network that it was made from")
    network = build_network(source.config).eval()
    load_into(network, source, weights)
    _known(network, settings)
    warnings: list[str] = []
    learn, held = draw_both(sources, annotations, (settings.crops, settings.check_crops), warnings)
    moving = {name: value for name, value in asdict(settings).items() if name not in FREE}
    read = [boxes for _, boxes in given]
    # Without annotations some of the sources' pictures are not trained on, so that is another recovery.
    identity = [file_sha256(file), weights, moving, [boxes_sha256(boxes) for boxes in read], annotations is None]
    key = sha256(json.dumps(identity, default=str).encode()).hexdigest()
    meta = {name: source.meta[name] for name in INHERITED if name in source.meta}
    return PreparedPruning(file, network, meta, learn, held, key, warnings)


def _known(network: MALNetwork, settings: PruneSettings) -> None:
    """InputError if the settings ask for what this network does not have."""
    candidates = sparse_candidates(network)
    names = [*candidates, *widths(network)]
    for part in settings.skip:
        if not any(part in name for name in names):
            raise InputError(f"--skip {part}: no layer is called so; they are called such as {names[0]}")
    if settings.sparsity != "none" and not chosen(network, settings):
        has = ", ".join(sorted(set(candidates.values()))) or "none"
        raise InputError(f"{network.config.arch}: no layer of these kinds can be 2:4 sparse; it has {has}")
    if settings.macs is not None and not widths(network):
        raise InputError(f"--macs: {network.config.arch} has no width that can be cut")


def chosen(network: MALNetwork, settings: PruneSettings) -> list[str]:
    """The layers that are to be 2:4 sparse."""
    kinds = sparse_candidates(network)
    return [n for n, kind in kinds.items() if kind in settings.layers and not any(part in n for part in settings.skip)]


def dense_model(prepared: PreparedPruning, folder: Path) -> tuple[Path, Contract]:
    """The dense network as a checkpoint and as an ONNX file in a folder; the file, and its contract."""
    checkpoint, onnx = folder / DENSE, folder / "dense.onnx"
    save_checkpoint(checkpoint, prepared.network.config, student=prepared.network.state_dict(), meta=prepared.meta)
    return onnx, export_onnx(checkpoint, onnx).contract


def read_crops(spots: Sequence[Spot], contract: Contract, batch: int) -> list[CropBatch]:
    """Crops of boxes, as the model takes them; RunError if no picture can be read."""
    found = list(crops(spots, contract, batch))
    if not found:
        raise RunError(f"none of the {len(spots)} pictures could be read")
    return found
