"""`mal-trt calibrate`: ranges from real crops, a typed INT8 (or FP8) model, and the gate it must pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from mal_trt.artifacts.contract import CPU_TARGET, Contract
from mal_trt.artifacts.parity_file import parity_path
from mal_trt.base.errors import InputError
from mal_trt.base.outputs import check_apart, check_file, json_bytes
from mal_trt.base.progress import Progress
from mal_trt.calibration.activations import Measured
from mal_trt.calibration.cache import Cache, cache_key
from mal_trt.calibration.convert import describe_drop, half_of
from mal_trt.calibration.gate import Check, Cost, drop_of, largest_set, sensitivity
from mal_trt.calibration.graph import check_graph, fold_constants, is_quantized, load_onnx, set_contract
from mal_trt.calibration.macs import multiplications
from mal_trt.calibration.output import check_out, publish, report_path, save, scratch
from mal_trt.calibration.parity_crops import parity_of
from mal_trt.calibration.quantize import GROUPS, Layer, choose, layers, quantize, usual_groups
from mal_trt.calibration.report import layer_rows
from mal_trt.calibration.sample import CropBatch, Losses, Spot, crops, draw_both, source_files
from mal_trt.calibration.settings import LEAST_CROPS, CalibrationSettings
from mal_trt.calibration.smooth import channel_maxima, smooth
from mal_trt.calibration.targets import Target, spectra, target_of
from mal_trt.formats.boxes import Source


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration wrote, as in the report file: see `document`."""

    path: Path
    report_path: Path
    file_bytes: int
    document: dict[str, Any]


def calibrate(
    model: Path | str,
    out: Path | str,
    sources: Sequence[Source],
    settings: CalibrationSettings | None = None,
    *,
    annotations: Source | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> CalibrationReport:
    """Make an INT8 or FP8 model that keeps its masks.

    - `model`: an FP32 or FP16 model of `mal-trt export`, or "bundled". `out`: the .onnx file.
    - `sources`: pairs of pictures and boxes that the ranges come from; pictures None where the boxes say where they
      are.
    - `annotations`: pictures, and boxes with drawn masks, to check the result on. None: boxes of `sources` that the
      ranges have not seen. Where fewer than half have drawn masks, masks are compared with the original's.
    - `settings`: see `CalibrationSettings`.
    - `cache`: a file that keeps what was measured, for the next calibration of the same model and crops.
    - `progress`: show bars on standard error.

    Writes `out`, its parity file and its report, or nothing. InputError for what cannot be used, RunError if no set of
    layers passes.
    """
    out = Path(out)
    prepared = prepare(model, out, sources, settings or CalibrationSettings(), annotations, cache)
    graph, contract, source, settings = prepared.graph, prepared.contract, prepared.source, prepared.settings
    chosen, learn, held, store = prepared.chosen, prepared.learn, prepared.held, prepared.store
    if settings.smooth:
        seen = crops(learn, contract, settings.batch)
        if not smooth(graph, chosen, channel_maxima(graph, contract, chosen, seen, settings.threads), settings.smooth):
            prepared.warnings.append("--smooth has no effect: no normalisation feeds nothing but quantised Linears")
    measured = store.measured
    if measured is None:
        measured = _measure(graph, contract, chosen, learn, settings, progress)
        store.store_measured(measured)
    target = target_of(graph, contract, chosen, measured.spectra, settings)

    batches = list(crops(held, contract, settings.batch))
    if not batches:
        raise InputError(f"none of the {len(held)} pictures to check on could be read")
    typed, wide = graph, tuple(contract.extra.get("fp32_nodes", ()))
    if contract.precision == "fp32" and target.rest == "fp16":
        typed, wide = half_of(graph, contract, batches, settings.threads)
    costs: list[Cost] = []
    with scratch(out, "check") as trial, scratch(out, settings.precision) as part:
        check = Check(source, batches, trial, settings.threads)
        attempt = _Attempt(typed, wide, contract, chosen, target, settings, check)
        order, limit = chosen, settings.limit(check.drawn)
        if settings.sensitivity_crops or attempt.drop(chosen) > limit:
            costs = _costs(graph, source, chosen, target, settings, batches, store, trial, progress)
            place = {cost.layer: number for number, cost in enumerate(costs)}
            order = sorted(chosen, key=lambda layer: place[layer.name])
        quantized, _ = largest_set(order, attempt.drop, limit, target.rest.upper())
        save(attempt.build(quantized), part)
        agreement, names = attempt.agreement(quantized), {layer.name for layer in quantized}
        document = {
            "model": source.name,
            "settings": asdict(settings),
            "crops": {"used": measured.crops, "unreadable": measured.unreadable, "blank": measured.blank},
            "verdict": describe_drop(agreement),
            "limit": limit,
            "agreement": agreement,
            "multiplications": _share(graph, contract, names, batches[0], settings.threads),
            "warnings": prepared.warnings,
            "layers": layer_rows(chosen, names, target, costs, settings.precision),
        }
        report = report_path(out)
        publish(part, out, parity_of(source, contract, batches), {report: json_bytes(document)})
    return CalibrationReport(out, report, out.stat().st_size, document)


@dataclass(frozen=True)
class PreparedCalibration:
    """What a calibration knows before it measures anything.

    chosen: the graph's layers to quantise. learn: boxes that the ranges come from; held: those to check on. settings:
    with the layers that suit the encoder. store: what an earlier calibration measured. warnings: see `draw`.
    """

    graph: onnx.ModelProto
    contract: Contract
    source: Path
    settings: CalibrationSettings
    chosen: list[Layer]
    learn: list[Spot]
    held: list[Spot]
    store: Cache
    warnings: list[str]


def prepare(
    model: Path | str,
    out: Path,
    sources: Sequence[Source],
    settings: CalibrationSettings,
    annotations: Source | None,
    cache: Path | None = None,
) -> PreparedCalibration:
    """Read and check all that a calibration needs; InputError for what cannot be used. Nothing is written."""
    check_out(out)
    check_file(report_path(out))
    proto, contract, source = load_onnx(model)
    check_file(cache)
    written = (out, parity_path(out), report_path(out), source)
    check_apart(written[:3], [source, *source_files(sources if annotations is None else [*sources, annotations])])
    if cache is not None and cache.resolve() in [path.resolve() for path in written]:
        raise InputError(f"--cache {cache}: is the model itself or one of the files written; give it another name")
    if contract.precision not in ("fp32", "fp16") or is_quantized(proto):
        raise InputError(f"{source}: quantised already ({contract.precision}); give the FP32 or FP16 model")
    if settings.target == CPU_TARGET and contract.precision != "fp32":
        raise InputError(f"{source}: {contract.precision}; --target cpu starts from the FP32 model")
    graph = fold_constants(proto)
    usual = GROUPS if settings.target == CPU_TARGET else usual_groups(graph)
    settings = replace(settings, layers=settings.layers or usual)
    chosen = _excluded(choose(graph, settings.layers, str(source)), settings.exclude)
    quantize(graph, chosen[:1], {chosen[0].name: 1.0}, settings.precision)  # shows at once whether the opset will do
    warnings: list[str] = []
    learn, held = draw_both(sources, annotations, (settings.crops, settings.check_crops), warnings)
    store = Cache(cache, partial(cache_key, source, learn + held, settings.measured))
    return PreparedCalibration(graph, contract, source, settings, chosen, learn, held, store, warnings)


def _measure(
    graph: onnx.ModelProto,
    contract: Contract,
    chosen: Sequence[Layer],
    spots: Sequence[Spot],
    settings: CalibrationSettings,
    progress: bool,
) -> Measured:
    """Spectra of the layers' inputs; InputError if too few crops can be used."""
    losses = Losses()
    batches = crops(spots, contract, settings.batch, losses, skip_blank=True)
    with Progress("calibrating", len(spots), unit="crops", show=progress) as bar:
        found = spectra(graph, contract, chosen, batches, settings, bar.advance)
    used = len(spots) - losses.unreadable - losses.blank
    if used < LEAST_CROPS:
        raise InputError(
            f"only {used} of {len(spots)} crops can be used ({losses.unreadable} could not be read, {losses.blank} "
            f"are of one colour); ranges need {LEAST_CROPS} at least"
        )
    return Measured(found, used, losses.unreadable, losses.blank)


def _share(
    graph: onnx.ModelProto, contract: Contract, quantized: Collection[str], batch: CropBatch, threads: int | None
) -> float:
    """Share of the multiplications by weights that happens in 8 bits."""
    count = multiplications(graph, contract, layers(graph), batch, threads)
    return sum(n for name, n in count.items() if name in quantized) / sum(count.values())


class _Attempt:
    """Models with sets of layers quantised, and what each of them measured."""

    def __init__(
        self,
        typed: onnx.ModelProto,
        wide: Sequence[str],
        contract: Contract,
        chosen: Sequence[Layer],
        target: Target,
        settings: CalibrationSettings,
        check: Check,
    ) -> None:
        self._typed, self._wide, self._contract = typed, wide, contract
        self._target, self._settings, self._check = target, settings, check
        self._order = {layer.name: place for place, layer in enumerate(chosen)}
        self._known: dict[frozenset[str], dict[str, Any]] = {}

    def drop(self, layers: Sequence[Layer]) -> float:
        """Drop of the model with these layers quantised."""
        return drop_of(self.agreement(layers))

    def agreement(self, layers: Sequence[Layer]) -> dict[str, Any]:
        """Agreement of that model with the reference."""
        names = frozenset(layer.name for layer in layers)
        if names not in self._known:
            self._known[names] = self._check.agreement(self.build(layers))
        return self._known[names]

    def build(self, layers: Sequence[Layer]) -> onnx.ModelProto:
        """That model, checked and with its contract."""
        layers = sorted(layers, key=lambda layer: self._order[layer.name])
        model = self._target.quantize(self._typed, layers)
        calibration = {
            "observer": self._settings.observer,
            "crops": self._settings.crops,
            "smooth": self._settings.smooth,
            "quantized": [layer.name for layer in layers],
        }
        extra = {name: value for name, value in self._contract.extra.items() if name != "fp16_weights"}
        extra |= {"calibration": calibration} | ({"fp32_nodes": list(self._wide)} if self._wide else {})
        if self._settings.target == CPU_TARGET:
            extra["target"] = CPU_TARGET
        set_contract(model, replace(self._contract, precision=self._settings.precision, extra=extra))
        check_graph(model)
        return model


def _excluded(chosen: list[Layer], exclude: Sequence[str]) -> list[Layer]:
    for part in exclude:
        if not any(part in layer.name for layer in chosen):
            raise InputError(f"--exclude {part}: no layer is called so; see the report of a run without it")
    left = [layer for layer in chosen if not any(part in layer.name for part in exclude)]
    if not left:
        raise InputError("--exclude leaves no layer to quantise")
    return left


def _costs(
    graph: onnx.ModelProto,
    source: Path,
    chosen: Sequence[Layer],
    target: Target,
    settings: CalibrationSettings,
    batches: Sequence[CropBatch],
    store: Cache,
    trial: Path,
    progress: bool,
) -> list[Cost]:
    wanted = settings.sensitivity_crops or CalibrationSettings.sensitivity_crops
    step = max(1, sum(len(batch.spots) for batch in batches) // wanted)
    check = Check(source, batches[::step], trial, settings.threads)
    known = store.costs(settings.tried)
    with Progress("trying layers alone", len(chosen), len(known), unit="layers", show=progress) as bar:

        def done(cost: Cost) -> None:
            store.store_cost(settings.tried, cost)
            bar.advance(1)

        return sensitivity(graph, chosen, target, check, known, done)
