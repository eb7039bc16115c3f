"""Is this file an engine, whole, unchanged, and one for this machine? All asked before TensorRT sees a byte of it.

An engine is code that runs with this process's rights, and the library crashes on some that do not fit.
"""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from mal_trt.artifacts.flavor import TITLES, Flavor, version_numbers
from mal_trt.artifacts.manifest import REBUILD, Manifest, manifest_path, read_manifest
from mal_trt.artifacts.onnxfile import read_onnx
from mal_trt.base.errors import InputError
from mal_trt.base.gpu import platform_tag

MAGIC = {b"ftrt": "tensorrt", b"vtrt": "tensorrt-rtx"}
SIZE_AT = 16  # in TensorRT-RTX's header: the file's size, 64 bits, little-endian
# TensorRT-RTX compiles for the GPU at hand when it loads an engine: from Ampere on, unless others were asked for.
PORTABLE = "8.0+"
SMALLEST = 64  # a plan's header alone


def load_engine(path: Path) -> tuple[bytes, Manifest]:
    """An engine's plan and manifest, the plan proved to be the one the manifest describes; InputError otherwise.

    The bytes returned are those that were checked: read the file once, give TensorRT these.
    """
    plan = _read(path)
    flavor = _flavor_of(path, plan)
    manifest = read_manifest(path)
    again = f"build it again: {manifest.command}"
    if len(plan) < manifest.plan_bytes:
        raise InputError(f"{path}: cut short, {len(plan)} of {manifest.plan_bytes} bytes are there; copy it or {again}")
    if hashlib.sha256(plan).hexdigest() != manifest.plan_sha256:
        raise InputError(
            f"{path}: is not the engine that {manifest_path(path).name} describes (SHA-256 differs): it was changed, "
            f"or the two come from different builds; {again}"
        )
    if flavor != manifest.flavor:
        raise InputError(f"{path}: is of {TITLES[flavor]}, its manifest of {TITLES[manifest.flavor]}; {again}")
    return plan, manifest


def check_machine(path: Path, manifest: Manifest, flavor: Flavor, compute_capability: str) -> None:
    """InputError if an engine does not run with this TensorRT, on this GPU, under this operating system.

    The message says what it was built with, what runs here, and the command that builds it again.
    """
    built = f"built with {TITLES[manifest.flavor]} {manifest.version} for compute capability "
    built += f"{' and '.join(manifest.compute_capabilities)} on {manifest.os}"
    here = f"{flavor.title}, compute capability {compute_capability}, {platform_tag()}"
    if problem := _mismatch(manifest, flavor, compute_capability):
        again = rebuild(manifest, flavor.name, compute_capability)
        raise InputError(f"{path}: {problem}: {built}, running on {here}; build it here: {again}")


def _mismatch(manifest: Manifest, flavor: Flavor, compute_capability: str) -> str:
    if manifest.flavor != flavor.name:
        return f"an engine of {TITLES[manifest.flavor]} cannot be loaded by {TITLES[flavor.name]}"
    if not _same_version(manifest, flavor.version):
        return "engines are bound to the TensorRT that built them"
    if not _same_platform(manifest):
        return "engines are bound to their operating system and processor"
    if not any(covers(entry, compute_capability) for entry in manifest.compute_capabilities):
        return "engines are bound to the GPUs they were built for"
    return ""


def rebuild(manifest: Manifest, flavor: str, compute_capability: str) -> str:
    """The command that builds an engine like it with another TensorRT or for another GPU."""
    words = shlex.split(manifest.command)
    for option in ("--flavor", "--compute-capability"):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    words += ["--flavor", flavor]
    if flavor == "tensorrt-rtx":
        words = [word for word in words if word not in ("--version-compatible", "--hardware-compatible")]
        targets = [entry for entry in manifest.compute_capabilities if not entry.endswith("+")]
        targets = targets if manifest.flavor == flavor else []
        if targets or not covers(PORTABLE, compute_capability):
            words += ["--compute-capability", ",".join(sorted({*targets, compute_capability}, key=version_numbers))]
    return shlex.join(words)


def covers(entry: str, compute_capability: str) -> bool:
    """Whether "8.6", or "8.0+" for all from there on, includes a compute capability such as "8.9"."""
    if entry.endswith("+"):
        return version_numbers(compute_capability) >= version_numbers(entry[:-1])
    return entry == compute_capability


def _same_version(manifest: Manifest, here: str) -> bool:
    built, running = version_numbers(manifest.version), version_numbers(here)
    if "VERSION_COMPATIBLE" in manifest.flags:
        return running >= built
    # `10.3.0` in one place is `10.3.0.26` in another: compared as far as both tell.
    shared = min(len(built), len(running))
    return shared > 0 and built[:shared] == running[:shared]


def _same_platform(manifest: Manifest) -> bool:
    if manifest.flavor == "tensorrt-rtx":  # its engines run under Windows and Linux alike
        return manifest.os.split("-")[-1] == platform_tag().split("-")[-1]
    return manifest.os == platform_tag()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such engine; {REBUILD}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _flavor_of(path: Path, plan: bytes) -> str:
    """The flavour a plan's first bytes tell; InputError says what the file is instead, or that it is cut short."""
    flavor = MAGIC.get(plan[:4])
    if flavor is None:
        raise InputError(f"{path}: {_what_else(path, plan)}; {REBUILD}")
    if len(plan) < SMALLEST:
        raise InputError(f"{path}: cut short, only {len(plan)} bytes are there; copy it again, or {REBUILD}")
    size = int.from_bytes(plan[SIZE_AT : SIZE_AT + 8], "little")
    if flavor == "tensorrt-rtx" and len(plan) < size:
        raise InputError(f"{path}: cut short, {len(plan)} of {size} bytes are there; copy it again, or {REBUILD}")
    return flavor


def _what_else(path: Path, plan: bytes) -> str:
    if not plan:
        return "an empty file, not an engine"
    if plan[:2] == b"PK" or plan[:1] == b"\x80":
        return "a PyTorch checkpoint, not an engine (export it first: `mal-trt export`)"
    if plan[4:5] == b"{" and any(magic in plan[: 1 << 16] for magic in MAGIC):
        return "an engine with a JSON header before the plan, as Ultralytics writes them, not one of mal-trt"
    try:
        read_onnx(path)
    except InputError:
        return "not a TensorRT engine"
    return "an ONNX model, not an engine"
