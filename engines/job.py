"""Everything about a build that is decided before TensorRT begins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mal_trt.artifacts.contract import Contract, check_for_gpu
from mal_trt.artifacts.enginefile import PORTABLE, covers
from mal_trt.artifacts.flavor import INSTALL, TITLES, Flavor, open_flavor
from mal_trt.artifacts.manifest import Profile, manifest_path
from mal_trt.artifacts.models import is_bundled, resolve_model
from mal_trt.artifacts.onnxfile import read_contract
from mal_trt.artifacts.parity_file import engine_parity_path
from mal_trt.backends.choice import ENGINES
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import Gpu, Machine, find_gpus
from mal_trt.base.outputs import check_apart, check_file
from mal_trt.engines.profiles import default_batch, profiles
from mal_trt.engines.sparsity import FLAG as SPARSE
from mal_trt.engines.sparsity import check_sparse
from mal_trt.engines.timing_cache import default_path
from mal_trt.formats.boxes import Source

# With --low-memory: scratch memory, and how hard TensorRT tries.
LOW_WORKSPACE, LOW_LEVEL = 256 << 20, 2
# What the library's integers hold.
MOST_BATCH, MOST_BYTES = 2**31 - 1, 1 << 63


@dataclass(frozen=True)
class EngineOptions:
    """How to build an engine. None and "auto" are decided by the machine and the model.

    - `flavor`: "auto", "tensorrt" or "tensorrt-rtx".
    - `precision`: "fp32", "fp16", "int8" or "fp8", made of an FP32 model. `sources`: pairs of pictures and boxes, to
      calibrate INT8 and FP8 on; pictures None where the boxes say where they are.
    - `batch`: smallest, best and largest. `workspace`: bytes of scratch memory. `timing_cache`: its file.
    - `opt_level`: from 0 (builds fast) to 5 (tries most).
    - `compute_capabilities`: GPUs to build for, such as "8.6"; TensorRT-RTX only.
    - `version_compatible`, `hardware_compatible`: run under later TensorRT versions, on every GPU from Ampere on.
    - `sparse`: use the 2:4 zeros that `mal-trt prune` made.
    - `strip_weights`: leave the weights out of the plan.
    - `low_memory`: profiles one at a time, little scratch memory, `opt_level` 2 at most; see `engines.low_memory`.
    """

    flavor: str = "auto"
    precision: str | None = None
    sources: tuple[Source, ...] = ()
    batch: tuple[int, int, int] | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    opt_level: int = 3
    compute_capabilities: tuple[str, ...] = ()
    version_compatible: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    sparse: bool = False
    low_memory: bool = False


@dataclass(frozen=True)
class Job:
    """A build as decided. onnx: the typed model. runs_on: compute capabilities for the manifest; targets: those
    given to TensorRT-RTX. flags: names of builder flags. notes: what the user should know."""

    onnx: Path
    contract: Contract
    out: Path
    flavor: Flavor
    gpu: Gpu | None
    profiles: tuple[Profile, ...]
    workspace: int | None
    timing_cache: Path | None
    opt_level: int
    targets: tuple[str, ...]
    runs_on: tuple[str, ...]
    flags: tuple[str, ...]
    notes: tuple[str, ...]
    command: str
    low_memory: bool = False


def prepare(model: str | Path, out: Path, options: EngineOptions, onnx: Path | None = None) -> Job:
    """Check the options against the model, the machine and the TensorRT there is; InputError or RunError says what
    does not go together. Nothing is built or written. onnx: the file to build from, if it is another than `model`,
    which errors and the command name.
    """
    onnx = onnx or resolve_model(model)
    contract = read_contract(onnx)
    check_for_gpu(contract, model, "TensorRT")
    check_output(out, onnx)
    _check_numbers(options)
    check_apart([options.timing_cache], [onnx])
    if not 0 <= options.opt_level <= 5:
        raise InputError(f"--opt-level {options.opt_level}: expected 0 (fast build) to 5 (slow build)")
    machine = find_gpus()
    flavor, gpu = choose_flavor(options.flavor, machine), machine.gpu
    notes = _sparse_notes(model, onnx, contract) if options.sparse else []
    if flavor.name == "tensorrt-rtx":
        runs_on, cache = _runs_on_rtx(flavor, options, gpu, notes), None
    else:
        assert gpu is not None  # choose_flavor saw to it
        _check_tensorrt(options, gpu)
        runs_on = (PORTABLE,) if options.hardware_compatible else (gpu.compute_capability,)
        cache = options.timing_cache or default_path(flavor, gpu)
    free = gpu.free_bytes if gpu is not None else None
    return Job(
        onnx=onnx,
        contract=contract,
        out=out,
        flavor=flavor,
        gpu=gpu,
        profiles=profiles(contract, options.batch or default_batch(contract, free)),
        workspace=_workspace(options, free if flavor.needs_gpu else None),
        timing_cache=cache,
        opt_level=min(options.opt_level, LOW_LEVEL) if options.low_memory else options.opt_level,
        targets=options.compute_capabilities,
        runs_on=runs_on,
        flags=_flags(options),
        notes=tuple(notes),
        command=command(model, out, options, flavor.name),
        low_memory=options.low_memory,
    )


def _check_numbers(options: EngineOptions) -> None:
    """InputError for sizes that no library can take; those of the command are checked by the command too."""
    batch, workspace = options.batch, options.workspace
    if batch is not None:
        whole = isinstance(batch, Sequence) and len(batch) == 3 and all(isinstance(n, int) for n in batch)
        if not whole or not 0 < batch[0] <= batch[1] <= batch[2] <= MOST_BATCH:
            raise InputError(f"--batch {batch}: expected least, best and most, such as 1,16,32")
    if workspace is not None and not (isinstance(workspace, int) and 0 < workspace < MOST_BYTES):
        raise InputError(f"--workspace {workspace}: expected bytes, such as {LOW_WORKSPACE}")


def _sparse_notes(model: str | Path, onnx: Path, contract: Contract) -> list[str]:
    notes = [check_sparse(onnx, model)]
    if contract.precision == "fp32":
        notes.append("sparse kernels are for FP16 and INT8: give --precision fp16, or a model of that type")
    return notes


def _flags(options: EngineOptions) -> tuple[str, ...]:
    """Names of TensorRT's builder flags."""
    flags = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "STRIP_PLAN": options.strip_weights,
        SPARSE: options.sparse,
        "AMPERE_PLUS": options.hardware_compatible,
    }
    return tuple(name for name, wanted in flags.items() if wanted)


def _workspace(options: EngineOptions, free: int | None) -> int | None:
    """Bytes of scratch memory; None lets the library take what it likes. free: of the GPU that builds, if known."""
    if options.workspace is not None:
        return options.workspace
    half = None if free is None else free // 2  # the library would take all, and a Jetson would kill the build
    return min(LOW_WORKSPACE, half or LOW_WORKSPACE) if options.low_memory else half


def choose_flavor(name: str, machine: Machine) -> Flavor:
    """The TensorRT to build with. "auto": TensorRT where there is a GPU and it is installed, or else TensorRT-RTX."""
    if name == "auto":
        if machine.gpu is None:
            name = "tensorrt-rtx"
            try:
                return open_flavor(name)
            except RunError as error:
                raise RunError(
                    f"{machine.problem}: TensorRT builds only on the GPU it builds for, and TensorRT-RTX, which "
                    f"builds without one, is not to be had here ({error})"
                ) from None
        try:
            return open_flavor("tensorrt")
        except RunError as first:
            try:
                return open_flavor("tensorrt-rtx")
            except RunError:
                raise first from None
    if name == "tensorrt" and machine.gpu is None:  # asked before the library is touched: it would crash
        raise RunError(
            f"{machine.problem}: TensorRT builds only on the GPU it builds for; build on that machine, or with "
            f"--flavor tensorrt-rtx ({INSTALL['tensorrt-rtx']})"
        )
    return open_flavor(name)


def _runs_on_rtx(flavor: Flavor, options: EngineOptions, gpu: Gpu | None, notes: list[str]) -> tuple[str, ...]:
    """Compute capabilities that a TensorRT-RTX engine is for. notes: gets what should be known of it. InputError for
    what that library cannot do."""
    _check_rtx(flavor, options, gpu)
    runs_on = options.compute_capabilities or (PORTABLE,)
    if gpu is not None and not any(covers(entry, gpu.compute_capability) for entry in runs_on):
        notes.append(f"the engine will not run on this machine's GPU ({gpu.compute_capability})")
    elif gpu is not None and gpu.compute_capability not in listed(flavor):
        notes.append(
            f"{flavor.title} {flavor.version} does not name this machine's GPU ({gpu.compute_capability}): whether "
            "the engine runs there shows when it is opened; it is not tried now"
        )
    if options.timing_cache is not None:
        notes.append("TensorRT-RTX measures nothing while it builds: --timing-cache has no effect")
    if options.sparse:
        notes.append("TensorRT-RTX chooses kernels on the GPU that runs the engine, and does not say which are sparse")
    return runs_on


def _check_rtx(flavor: Flavor, options: EngineOptions, gpu: Gpu | None) -> None:
    title = TITLES["tensorrt-rtx"]
    if options.version_compatible:
        raise InputError(f"--version-compatible: a {title} engine runs only with the version that built it")
    if options.hardware_compatible:
        raise InputError(
            f"--hardware-compatible: a {title} engine runs on every GPU from Ampere on as it is; "
            "--compute-capability narrows that"
        )
    if options.strip_weights and gpu is None:
        raise InputError(f"--strip-weights: {title} leaves weights out only where there is a GPU")
    known = listed(flavor)
    for entry in options.compute_capabilities:
        if entry not in known:
            raise InputError(f"--compute-capability {entry}: {flavor.title} knows {', '.join(known)}")


def listed(flavor: Flavor) -> list[str]:
    """The compute capabilities that this TensorRT-RTX names, such as "8.9"."""
    names = [name for name in dir(flavor.module.ComputeCapability) if name.startswith("SM")]
    return sorted((f"{name[2:-1]}.{name[-1]}" for name in names), key=float)


def _check_tensorrt(options: EngineOptions, gpu: Gpu) -> None:
    if options.compute_capabilities:
        raise InputError(
            f"--compute-capability: TensorRT builds for the GPU it runs on, here {gpu.compute_capability}; "
            "use --hardware-compatible for all from Ampere on, or --flavor tensorrt-rtx"
        )
    if options.hardware_compatible and not covers(PORTABLE, gpu.compute_capability):
        raise InputError(
            f"--hardware-compatible: has to be built on an Ampere GPU or newer, this one has compute capability "
            f"{gpu.compute_capability}"
        )


def check_output(out: Path, onnx: Path) -> None:
    """InputError if the engine, its manifest or its parity file cannot be written under that name."""
    check_file(out, ENGINES)
    check_file(manifest_path(out))
    check_file(engine_parity_path(out))
    check_apart([out], [onnx])


def command(model: str | Path, out: Path, options: EngineOptions, flavor: str) -> str:
    """The words that build the same engine again, on the machine it is to run on."""
    name = str(model) if is_bundled(model) else Path(model).name
    words = ["mal-trt", "build-engine", name, "-o", out.name, "--flavor", flavor]
    if options.precision is not None:
        words += ["--precision", options.precision]
    for images, boxes in options.sources:
        words += ([] if images is None else ["--images", str(images)]) + ["--boxes", str(boxes)]
    if options.batch is not None:
        words += ["--batch", ",".join(map(str, options.batch))]
    if options.workspace is not None:
        words += ["--workspace", str(options.workspace)]
    if options.opt_level != EngineOptions.opt_level:
        words += ["--opt-level", str(options.opt_level)]
    if options.compute_capabilities:
        words += ["--compute-capability", ",".join(options.compute_capabilities)]
    for option in ("version_compatible", "hardware_compatible", "strip_weights", "sparse", "low_memory"):
        if getattr(options, option):
            words.append("--" + option.replace("_", "-"))
    return shlex.join(words)
