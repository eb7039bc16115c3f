"""`mal-trt prune`: fewer multiplications, by 2:4 zeros or narrower layers, and the same masks.

What can be pruned, and by which scores, is `training.sparse`, `training.widths` and `training.importance`.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from rich.console import Console

from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.base.outputs import json_bytes
from mal_trt.base.progress import Progress
from mal_trt.calibration.convert import describe_drop
from mal_trt.calibration.gate import Check, Cost
from mal_trt.calibration.output import beside, report_path
from mal_trt.calibration.sample import CropBatch
from mal_trt.export.export import export_onnx
from mal_trt.export.prune_recovery import START, recover
from mal_trt.export.prune_settings import RECOVERABLE, PruneSettings
from mal_trt.export.prune_start import PreparedPruning, dense_model, prepare, read_crops
from mal_trt.export.prune_steps import narrower, sparse_weights
from mal_trt.export.prune_trial import DENSE_MASKS, Trial, costs, every, most_layers, passed
from mal_trt.formats.boxes import Source
from mal_trt.training.checkpoint import load_into, read_checkpoint, save_checkpoint
from mal_trt.training.importance import work
from mal_trt.training.network import MALNetwork, build_network
from mal_trt.training.sparse import META, sparse_candidates, zeros_of
from mal_trt.training.widths import trimmed

MARK = "pruning.txt"  # in the folder of a recovery: which pruning it is of


@dataclass(frozen=True)
class PruneReport:
    """What a pruning wrote; `document` is what the report file holds."""

    path: Path
    report_path: Path
    document: dict[str, Any]


@dataclass
class _Pruned:
    """A pruned network. widths: what is left of each that was cut. sparse: names of its sparse layers. costs: of the
    layers that were tried alone."""

    network: MALNetwork
    widths: dict[str, Any] = field(default_factory=dict)
    sparse: list[str] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)


def prune(
    model: Path | str,
    out: Path | str,
    sources: Sequence[Source],
    settings: PruneSettings | None = None,
    *,
    annotations: Source | None = None,
    weights: str = "student",
    say: Callable[[str], None] = lambda text: None,
    progress: bool = True,
) -> PruneReport:
    """Make a network with fewer multiplications that keeps its masks.

    - `model`: a checkpoint, an FP32 or FP16 model of `mal-trt export`, or "bundled". `out`: the checkpoint to write.
    - `sources`: pairs of pictures and boxes; pictures None where the boxes say where they are.
    - `annotations`: pictures, and boxes with drawn masks, to check the result on. None: boxes of `sources` that
      nothing was learnt from. Where fewer than half have drawn masks, masks are compared with the dense network's.
    - `settings`: see `PruneSettings`. `weights`: which network of a checkpoint, "student" or "teacher".
    - `say`: called with a line on each step. `progress`: show bars on standard error.

    Writes `out` and its report, or nothing. InputError for what cannot be used, RunError if the masks are lost; a
    recovery that was interrupted goes on from its folder beside `out` when called again.
    """
    out, settings = Path(out), settings or PruneSettings()
    prepared = prepare(model, out, sources, settings, annotations, weights)
    with _folder(out, prepared, settings) as folder:
        say("exporting the dense network, which the pruned one is compared with")
        reference, contract = dense_model(prepared, folder)
        held = read_crops(prepared.held, contract, settings.batch)
        check = Check(reference, held, folder / "trial.onnx", settings.threads)
        limit = settings.limit(check.drawn)
        pruned = _resumed(folder, prepared)
        if pruned is None:
            pruned = _prune(prepared, reference, folder, check, held, limit, settings, say, progress)
        recovered = {}
        if settings.recover:
            before = _agreement(pruned, prepared, folder, check)
            _save(folder / START, pruned, prepared)
            say(f"recovering on {settings.recover} crops; before: {describe_drop(before, DENSE_MASKS)}")
            console = Console(stderr=True, quiet=not progress)
            done = recover(folder, sources, prepared.held if annotations is None else (), settings, console, progress)
            load_into(pruned.network, read_checkpoint(done), "student")
            recovered = {"before": before, "samples": settings.recover}
        zeros_of(pruned.network, pruned.sparse, str(out))
        agreement = _agreement(pruned, prepared, folder, check)
        passed(agreement, limit, pruned.costs, _advice(settings))
        document, report = _document(prepared, pruned, settings, agreement, recovered), report_path(out)
        with beside({report: json_bytes(document)}):
            _save(out, pruned, prepared)
    return PruneReport(out, report, document)


def _prune(
    prepared: PreparedPruning,
    reference: Path,
    folder: Path,
    check: Check,
    held: Sequence[CropBatch],
    limit: float,
    settings: PruneSettings,
    say: Callable[[str], None],
    progress: bool,
) -> _Pruned:
    """The network without recovery: cut, then with as many sparse layers as stay within what the gate, or a recovery,
    allows."""
    pruned = _Pruned(copy.deepcopy(prepared.network))
    batches = read_crops(prepared.learn, check.contract, settings.batch)
    allowed = limit * RECOVERABLE if settings.recover else limit
    if settings.macs is not None:
        say("measuring what each neuron, head and channel is worth")
        pruned.widths = narrower(pruned.network, batches, settings)
        pruned.network = _built(pruned.network, prepared)
        reference = folder / "narrower.onnx"
        _save(folder / "narrower.pth", pruned, prepared)
        export_onnx(folder / "narrower.pth", reference)
    if settings.sparsity == "none":
        return pruned
    say(f"2:4 zeros by {settings.score}")
    weights = sparse_weights(pruned.network, batches, settings)
    model = onnx.load(reference)
    trial, names = Trial(check, model, weights), list(weights)
    if trial.drop(names) > allowed:
        few = Check(
            folder / "dense.onnx", every(held, settings.sensitivity_crops), folder / "one.onnx", settings.threads
        )
        with Progress("trying layers alone", len(names), unit="layers", show=progress) as bar:
            pruned.costs = costs(few, model, weights, lambda: bar.advance(1))
        names = most_layers(trial, pruned.costs, allowed)
    with torch.no_grad():
        for name in names:
            pruned.network.get_submodule(name).weight.copy_(weights[name])  # type: ignore[operator]
    pruned.sparse = [name for name in weights if name in set(names)]
    return pruned


def _built(network: MALNetwork, prepared: PreparedPruning) -> MALNetwork:
    """A network that was cut in place, as its own configuration builds it."""
    before = build_network(replace(prepared.network.config, trimmed=()))
    found = build_network(replace(prepared.network.config, trimmed=trimmed(before, network))).eval()
    found.load_state_dict(network.state_dict())
    return found


def _agreement(pruned: _Pruned, prepared: PreparedPruning, folder: Path, check: Check) -> dict[str, Any]:
    """Of the pruned network, exported, with the dense one. The export checks that the zeros stand in the file."""
    checkpoint, model = folder / "candidate.pth", folder / "candidate.onnx"
    _save(checkpoint, pruned, prepared)
    export_onnx(checkpoint, model)
    return check.agreement(onnx.load(model))


def _save(path: Path, pruned: _Pruned, prepared: PreparedPruning) -> None:
    meta = {**prepared.meta, **({META: pruned.sparse} if pruned.sparse else {})}
    if path.name == START:
        found = [asdict(cost) for cost in pruned.costs]
        meta |= {"widths": pruned.widths, "costs": found}
    state = pruned.network.state_dict()
    save_checkpoint(path, pruned.network.config, student=state, teacher=state, meta=meta)


def _resumed(folder: Path, prepared: PreparedPruning) -> _Pruned | None:
    """What an earlier call left of the same pruning."""
    if not (folder / START).is_file():
        return None
    checkpoint = read_checkpoint(folder / START)
    assert checkpoint.config is not None
    network = build_network(checkpoint.config).eval()
    load_into(network, checkpoint, "student")
    found = [Cost(**cost) for cost in checkpoint.meta.get("costs", ())]
    return _Pruned(network, dict(checkpoint.meta["widths"]), list(checkpoint.meta.get(META, ())), found)


@contextmanager
def _folder(out: Path, prepared: PreparedPruning, settings: PruneSettings) -> Iterator[Path]:
    """A folder for files that are only needed on the way. That of a recovery lies beside the result and stays until the
    result is written, so that a killed run can go on."""
    if not settings.recover:
        with tempfile.TemporaryDirectory(prefix=f".{out.stem}.", dir=out.parent) as name:
            yield Path(name)
        return
    folder = out.with_name(f"{out.stem}.recovery")
    mark = folder / MARK
    try:
        if mark.is_file():
            if mark.read_text() != prepared.key:
                raise InputError(f"{folder}: of another model or other options; remove it, or choose another --out")
        elif folder.exists():
            raise InputError(f"{folder}: exists, and the recovery needs that name; choose another --out")
        else:
            folder.mkdir()
            mark.write_text(prepared.key)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield folder
    except MalTrtError:
        if not (folder / START).is_file():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _advice(settings: PruneSettings) -> str:
    if not settings.recover:
        return "train the pruned network a little with --recover, such as --recover 4000"
    smaller = "" if settings.macs is None else ", a larger share of --macs"
    return f"recover longer{smaller} or raise --max-miou-drop"


def _document(
    prepared: PreparedPruning,
    pruned: _Pruned,
    settings: PruneSettings,
    agreement: dict[str, Any],
    recovered: dict[str, Any],
) -> dict[str, Any]:
    dense, narrow = work(prepared.network), work(pruned.network)
    kinds = sparse_candidates(pruned.network)
    cost = {entry.layer: entry for entry in pruned.costs}
    rows = [
        {
            "name": name,
            "kind": kind,
            "sparse": name in pruned.sparse,
            "change": cost[name].change if name in cost else None,
            "error": cost[name].error if name in cost else None,
        }
        for name, kind in kinds.items()
    ]
    return {
        "model": prepared.path.name,
        "settings": asdict(settings),
        "verdict": describe_drop(agreement, DENSE_MASKS),
        "agreement": agreement,
        "recovery": recovered or None,
        "multiplications": {"dense": int(dense.total()), "left": int(narrow.total())},
        "sparse_share": narrow.total(pruned.sparse) / narrow.total(),
        "parameters": {"dense": _count(prepared.network), "left": _count(pruned.network)},
        "widths": pruned.widths,
        "layers": rows,
        "warnings": prepared.warnings,
    }


def _count(network: MALNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
