"""`mal-trt doctor`: what this machine has for mal-trt, whether it really works, and what to do where it does not."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mal_trt.artifacts.flavor import INSTALL, MODULES, OLDEST, TITLES, version_numbers
from mal_trt.backends.choice import INSTALL as OPENVINO_INSTALL
from mal_trt.base.errors import InputError
from mal_trt.base.gpu import VISIBLE, Machine, find_gpus, hidden, platform_tag
from mal_trt.base.memory import read_memory
from mal_trt.base.processor import native_half
from mal_trt.base.version import __version__
from mal_trt.cuda.open import VARIABLE, choose_provider, installed
from mal_trt.measure.finding import MISSING, OK, WARNING, Finding
from mal_trt.measure.hardware import said
from mal_trt.measure.jetson import examine_jetson

# Runs the bundled model as `label` does. That a provider is offered says little: one whose libraries do not load is
# quietly replaced by the CPU.
PARITY = """
import numpy as np
from mal_trt.artifacts.models import resolve_model
from mal_trt.artifacts.parity_file import parity_path, read_parity
from mal_trt.backends import open_backend
stored = read_parity(parity_path(resolve_model("bundled")))[0]
backend = open_backend("bundled", device={device!r}, backend={backend!r})
size, expected = next(stored.rows())
logits = backend.run(stored.image, size)
print(backend.provider, f"{{np.abs(logits - expected).max() / np.ptp(expected):.0e}}")
"""
LIMIT = 0.01  # of the logits' range; CUDA may round products to TF32
HALF_LIMIT = 0.1  # where products are rounded to half precision
SECONDS = 60  # for a library to load
LEAST_DISK = 2 << 30  # an FP32 ViT-Base: model, engine and their temporary copies
LEAST_MEMORY = 2 << 30


def examine() -> Iterator[Finding]:
    """Look at everything, one finding after the other; a check that fails is a finding too."""
    machine = find_gpus()
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _program,
        _jetson,
        lambda: _driver(machine),
        lambda: _tensorrt(machine),
        lambda: _cuda(machine),
        lambda: _onnxruntime(machine),
        _openvino,
        _packages,
        _disk,
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a doctor that dies of what it finds helps nobody
            yield Finding(check.__name__.strip("_"), WARNING, f"could not be examined ({error})", "report this")


def _program() -> Iterator[Finding]:
    yield Finding("mal-trt", OK, f"{__version__}, Python {platform.python_version()}, {platform_tag()}")


def _jetson() -> Iterator[Finding]:
    return examine_jetson(Path("/"), said, read_memory())


def _driver(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        advice = "install NVIDIA's driver to use a GPU; labelling, training and RTX engine builds work without"
        yield Finding("GPU", MISSING, machine.problem, advice)
        return
    yield Finding("driver", OK, f"runs CUDA up to {machine.cuda}")
    if why := hidden():
        yield Finding(VISIBLE, OK, why.partition(f"{VISIBLE}=")[2])
    for number, gpu in enumerate(machine.gpus):
        memory = f"{gpu.total_bytes / 2**30:.1f} GiB"
        if gpu.free_bytes is not None:
            memory += f", {gpu.free_bytes / 2**30:.1f} GiB free"
        low = gpu.free_bytes is not None and gpu.free_bytes < LEAST_MEMORY
        advice = "close other programs, or use a small --batch" if low else ""
        value = f"{gpu.name}, compute capability {gpu.compute_capability}, {memory}"
        yield Finding(f"GPU {number}", WARNING if low else OK, value, advice)


def _tensorrt(machine: Machine) -> Iterator[Finding]:
    for flavor, module in MODULES.items():
        done = _try(f"import {module}; print({module}.__version__)")
        if done.ok:
            version = done.output
            old = version_numbers(version) < OLDEST[flavor]
            floor = ".".join(map(str, OLDEST[flavor]))
            advice = f"install {floor} or newer: {INSTALL[flavor]}" if old else ""
            value = version
            if not machine.gpus:
                value += " (no GPU: builds engines, cannot run them)" if flavor == "tensorrt-rtx" else " (no GPU)"
            yield Finding(TITLES[flavor], WARNING if old else OK, value, advice)
        elif f"No module named '{module}'" in done.output:
            yield Finding(TITLES[flavor], MISSING, "not installed", INSTALL[flavor])
        else:
            yield Finding(TITLES[flavor], WARNING, f"cannot be loaded: {done.output}", INSTALL[flavor])


def _cuda(machine: Machine) -> Iterator[Finding]:
    """What talks to the GPU for engines, and what compiles kernels for it."""
    try:
        chosen = choose_provider()
    except InputError as error:
        value, _, install = str(error).partition("; run: ")
        yield Finding("CUDA", WARNING if VARIABLE in value else MISSING, value, install or f"correct {VARIABLE}")
        return
    others = [name for name in installed() if name != chosen]
    value = f"by {chosen}" + (f" ({VARIABLE} can choose {others[0]} instead)" if others else "")
    done = _try("from mal_trt.cuda.compile import find_compiler; print(find_compiler().title)")
    if done.ok:
        yield Finding("CUDA", OK, f"{value}, kernels by {done.output}" + ("" if machine.gpus else " (no GPU)"))
    else:
        advice = done.output.rpartition("RunError: ")[2]
        yield Finding("CUDA", WARNING, f"{value}, but kernels cannot be compiled", advice)


def _onnxruntime(machine: Machine) -> Iterator[Finding]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if not installed:
        yield Finding("ONNX Runtime", MISSING, "not installed", 'pip install "mal-trt[cpu]" (or [gpu])')
        return
    if len(installed) == 2:
        advice = "uninstall both, then install one: they overwrite each other's files"
        yield Finding("ONNX Runtime", WARNING, "onnxruntime and onnxruntime-gpu are both installed", advice)
    else:
        yield Finding("ONNX Runtime", OK, f"{installed[0]} {_version(installed[0])}")
    for device in ("cpu", "cuda"):
        name = f"{device.upper()}ExecutionProvider"
        done = _try(PARITY.format(device=device, backend="onnxruntime"))
        provider, _, moved = done.output.partition(" ")
        if done.ok and provider == name and float(moved) < LIMIT:
            yield Finding(name, OK, f"runs the bundled model, {moved} of the logits' range from its reference")
        elif done.ok and provider == name:
            value = f"gives other logits than the bundled model's reference ({moved} of their range)"
            yield Finding(name, WARNING, value, "install another version of ONNX Runtime, and report this")
        elif device == "cpu":
            yield Finding(name, WARNING, f"does not run: {done.output}", 'pip install --force-reinstall "mal-trt[cpu]"')
        else:
            advice = 'in an environment of its own: pip install "mal-trt[gpu]"' if machine.gpus else ""
            yield Finding(name, MISSING, "does not run here", advice)


def _openvino() -> Iterator[Finding]:
    half = native_half()
    if not _version("openvino"):
        if half == "bf16":
            value = "not installed; it is faster than ONNX Runtime on this processor, which computes bfloat16 by itself"
            yield Finding("OpenVINO", MISSING, value, OPENVINO_INSTALL)
        else:
            yield Finding("OpenVINO", MISSING, "not installed; it pays on processors that compute bfloat16")
        return
    done = _try(PARITY.format(device="cpu", backend="openvino"))
    provider, _, moved = done.output.rpartition(" ")
    if not done.ok:
        yield Finding("OpenVINO", WARNING, f"does not run: {done.output}", f"{OPENVINO_INSTALL}, or uninstall openvino")
        return
    precision = provider.partition("(")[2].rstrip(")")
    value = f"{_version('openvino')}, runs the bundled model in {precision}, {moved} of the logits' range from its"
    value += " reference; --backend auto takes it for FP32 models" if half == "bf16" else " reference"
    if float(moved) < (LIMIT if half is None else HALF_LIMIT):
        yield Finding("OpenVINO", OK, value)
    else:
        yield Finding("OpenVINO", WARNING, value, "use --backend onnxruntime, and report this")


def _packages() -> Iterator[Finding]:
    wanted = (
        ("torch", "train, export", 'pip install "mal-trt[train]" or "mal-trt[export]"'),
        ("onnx", "export, calibrate", 'pip install "mal-trt[export]" or "mal-trt[calibrate]"'),
        ("cuda-bindings", "engines", 'pip install "mal-trt[gpu]"'),
        ("pycuda", "engines where cuda-bindings are not to be had", 'pip install "mal-trt[pycuda]"'),
    )
    for package, purpose, install in wanted:
        if version := _version(package):
            yield Finding(package, OK, version)
        else:
            yield Finding(package, MISSING, f"not installed; for {purpose}", install)


def _disk() -> Iterator[Finding]:
    for name, folder in (("disk", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        low = free < LEAST_DISK
        advice = f"make room: a large model and its engine take up to {LEAST_DISK >> 30} GiB" if low else ""
        yield Finding(name, WARNING if low else OK, f"{free / 2**30:.1f} GiB free", advice)


@dataclass(frozen=True)
class _Tried:
    ok: bool
    output: str


def _try(code: str) -> _Tried:
    """Run a line of Python in a process of its own: a library that crashes or hangs takes only that with it."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _Tried(False, f"no answer within {SECONDS} s")
    if done.returncode == 0:
        return _Tried(True, (done.stdout.strip().splitlines() or [""])[-1])
    if done.returncode < 0:
        return _Tried(False, f"crashed (signal {-done.returncode})")
    return _Tried(False, (done.stderr.strip().splitlines() or ["failed without a word"])[-1])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
