"""Kernel files become code for one GPU, by NVRTC or nvcc, and are kept on disk: they are compiled once."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from mal_trt.base.caches import cache_folder, keep
from mal_trt.base.errors import RunError
from mal_trt.base.gpu import find_gpus
from mal_trt.cuda.driver import Device

FOLDER = Path(__file__).with_name("kernels")
# Without fused multiply-adds a kernel rounds as the processor does, which its results must equal.
FLAGS = ("-std=c++17", "--fmad=false")
INSTALL = (
    'pip install nvidia-cuda-nvrtc (for a driver of CUDA 12: "cuda-bindings<13" nvidia-cuda-nvrtc-cu12), '
    "or the CUDA toolkit with nvcc"
)


class Compiler(Protocol):
    """One compiler for CUDA C++. title: its name and version, for people and for the cache's keys. major: of CUDA."""

    title: str
    major: int

    def architectures(self) -> list[int]:
        """GPUs it knows, ascending: 86 is compute capability 8.6."""
        ...

    def compile(self, path: Path, target: str, flags: tuple[str, ...]) -> bytes:
        """Machine code for a target like "sm_86", or PTX for one like "compute_86". RunError if it refuses."""
        ...


def find_compiler() -> Compiler:
    """NVRTC where it is installed, else nvcc, and none that is too new for the driver; RunError if that leaves none."""
    from mal_trt.cuda.nvcc import find_nvcc
    from mal_trt.cuda.nvrtc import open_nvrtc

    cuda = find_gpus(free=False).cuda
    too_new: Compiler | None = None
    for find in (open_nvrtc, find_nvcc):
        compiler: Compiler | None = find()
        # A driver loads the code of every compiler of its own major version, also of newer minor ones.
        if compiler is not None and (cuda is None or compiler.major <= int(cuda.split(".")[0])):
            return compiler
        too_new = too_new or compiler
    if too_new is not None:
        raise RunError(
            f"{too_new.title} is too new for this driver (CUDA {cuda}); install a newer driver, or {INSTALL}"
        )
    raise RunError(f"there is no compiler for kernels; {INSTALL}")


def compiled(source: str, device: Device, compiler: Compiler | None = None) -> bytes:
    """A file of mal_trt/cuda/kernels, such as "crop.cu", as a module for a GPU: from the cache, or compiled now.

    RunError, with the first line of the compiler's log, if it does not compile.
    """
    compiler = compiler or find_compiler()
    path = FOLDER / source
    target = choose_target(device.compute_capability, compiler)
    entry = cache_folder() / "kernels" / f"{path.stem}-{_key(path, target, compiler.title)}.bin"
    image = _read(entry)
    if image is None:
        image = compiler.compile(path, target, FLAGS)
        keep(entry, hashlib.sha256(image).digest() + image)
    return image


def choose_target(capability: tuple[int, int], compiler: Compiler) -> str:
    """Machine code where the compiler knows the GPU; else, for a newer one, PTX that the driver finishes."""
    wanted = capability[0] * 10 + capability[1]
    known = compiler.architectures()
    if wanted in known:
        return f"sm_{wanted}"
    older = [architecture for architecture in known if architecture < wanted]
    if not older:
        name = f"compute capability {capability[0]}.{capability[1]}"
        raise RunError(f"{compiler.title} does not know GPUs of {name} any more; install an older one: {INSTALL}")
    return f"compute_{max(older)}"


def _key(path: Path, target: str, title: str) -> str:
    """Hash of all that decides the result: the file and those it may include, flags, GPU and compiler."""
    digest = hashlib.sha256("\n".join((target, title, *FLAGS)).encode())
    for part in (path, *sorted(path.parent.glob("*.cuh"))):
        try:
            content = part.read_bytes()
        except OSError as error:
            raise RunError(f"{part}: cannot be read ({error.strerror}); install mal-trt again") from None
        digest.update(f"\n{part.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def _read(entry: Path) -> bytes | None:
    """A cached module; None if there is none, or if it is not what was written."""
    content = b""
    with suppress(OSError):
        content = entry.read_bytes()
    digest, image = content[:32], content[32:]
    return image if image and hashlib.sha256(image).digest() == digest else None
