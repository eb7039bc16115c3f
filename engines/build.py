"""`mal-trt build-engine`: a typed ONNX file becomes a plan and its manifest."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mal_trt.artifacts.flavor import Messages
from mal_trt.artifacts.manifest import UNCHECKED, Manifest, manifest_path, shapes
from mal_trt.artifacts.parity_file import engine_parity_path
from mal_trt.artifacts.trtmessages import explain, known
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, RunError
from mal_trt.base.gpu import platform_tag
from mal_trt.base.outputs import replaced
from mal_trt.base.version import __version__
from mal_trt.engines import timing_cache
from mal_trt.engines.job import Job
from mal_trt.engines.monitor import Monitor
from mal_trt.engines.network import Parsed, parse
from mal_trt.engines.sparsity import FLAG, Sparse, said
from mal_trt.engines.worker import run_beside


@dataclass(frozen=True)
class Built:
    """An engine in memory. seconds: what TensorRT took; cached: whether a timing cache fitted; warnings: known ones.
    sparse: layers with sparse kernels, where --sparse asked for them."""

    plan: bytes
    manifest: Manifest
    seconds: float
    cached: bool
    warnings: tuple[str, ...]
    sparse: Sparse | None = None


def inspect_network(job: Job) -> dict[str, dict[str, int]]:
    """Precision per kind of layer as TensorRT reads the model, without building: what --dry-run shows."""
    return run_beside(lambda: parse(job.flavor, job.onnx, Messages()).precision)


def build(job: Job, show: Callable[[float], None] = lambda share: None) -> Built:
    """Build an engine. show: called with the share done. RunError if TensorRT refuses, KeyboardInterrupt on Ctrl-C."""
    monitor = Monitor(show)
    return run_beside(lambda: _build(job, monitor), monitor.stop.set)


def _build(job: Job, monitor: Monitor) -> Built:
    messages = Messages()
    parsed = parse(job.flavor, job.onnx, messages)
    config, cached = _configure(job, parsed)
    listener = monitor.attach(job.flavor)
    config.progress_monitor = listener
    began = time.perf_counter()
    plan = parsed.builder.build_serialized_network(parsed.network, config)
    seconds = time.perf_counter() - began
    if plan is None or plan.nbytes == 0:
        raise RunError(f"{job.onnx}: {job.flavor.title} built no engine: {explain(messages.errors)}")
    if job.timing_cache is not None:
        timing_cache.store(config, job.timing_cache)
    content = bytes(plan)
    heard = {sentence: None for _, text in messages.all if (sentence := known(text))}
    sparse = said(messages.sparsity) if FLAG in job.flags else None
    return Built(content, _manifest(job, content, parsed), seconds, cached, tuple(heard), sparse)


def write(built: Built, out: Path, reference: Path) -> None:
    """Write plan and manifest, each whole or not at all, and the model's parity file, where it has one, beside them.

    RunError if the disk refuses. A crash between plan and manifest leaves a pair whose hashes differ, which is never
    loaded.
    """
    beside = engine_parity_path(out)
    try:
        contents = {beside: reference.read_bytes()} if reference.is_file() else {}
    except OSError as error:
        raise InputError(f"{reference}: cannot be read ({error.strerror or error})") from None
    contents |= {out: built.plan, manifest_path(out): built.manifest.to_json().encode()}
    with ExitStack() as written:  # all before the first gets its name, which is the last that is entered
        for path, content in reversed(contents.items()):
            written.enter_context(replaced(path)).write_bytes(content)
        if beside not in contents:
            beside.unlink(missing_ok=True)  # of an engine that had this name before


def _configure(job: Job, parsed: Parsed) -> tuple[Any, bool]:
    """The builder's configuration, and whether a timing cache from an earlier build fitted."""
    flavor = job.flavor
    config = parsed.builder.create_builder_config()
    for profile in job.profiles:
        entry = parsed.builder.create_optimization_profile()
        for name, (least, best, most) in shapes(job.contract, profile).items():
            entry.set_shape(name, least, best, most)
        if config.add_optimization_profile(entry) < 0:
            raise RunError(f"{flavor.title} refuses the profile of batch {', '.join(map(str, profile.batch))}")
    config.builder_optimization_level = job.opt_level
    config.profiling_verbosity = flavor.member("ProfilingVerbosity", "DETAILED")
    # FP32 in the model means FP32: TF32 would round its products to ten bits.
    config.clear_flag(flavor.member("BuilderFlag", "TF32"))
    for flag in job.flags:
        if flag == "AMPERE_PLUS":
            config.hardware_compatibility_level = flavor.member("HardwareCompatibilityLevel", flag)
        else:
            config.set_flag(flavor.member("BuilderFlag", flag))
    if job.workspace is not None:
        config.set_memory_pool_limit(flavor.member("MemoryPoolType", "WORKSPACE"), job.workspace)
    if job.targets:
        config.num_compute_capabilities = len(job.targets)
        for index, target in enumerate(job.targets):
            member = flavor.member("ComputeCapability", "SM" + target.replace(".", ""))
            if not config.set_compute_capability(member, index):
                raise RunError(f"{flavor.title} refuses to build for compute capability {target}")
    cached = job.timing_cache is not None and timing_cache.attach(config, job.timing_cache)
    return config, cached


def _manifest(job: Job, plan: bytes, parsed: Parsed) -> Manifest:
    return Manifest(
        contract=job.contract,
        flavor=job.flavor.name,
        version=job.flavor.version,
        compute_capabilities=job.runs_on,
        os=platform_tag(),
        gpu=job.gpu.name if job.gpu is not None else "",
        precision=parsed.precision,
        precision_source="network",
        profiles=job.profiles,
        flags=job.flags,
        opt_level=job.opt_level,
        workspace=job.workspace,
        onnx=job.onnx.name,
        onnx_sha256=file_sha256(job.onnx),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        parity={"status": UNCHECKED},
        command=job.command,
        producer=f"mal-trt {__version__}",
    )
