"""A test double of a GPU that runs mal-trt's own kernel sources: g++ compiles them, one thread runs after the other.

`compiled(folder)` gives the functions that `host_cuda.HostDriver` takes; it checks each launch's arguments against the
kernel's parameters, as CUDA does not. KERNEL_FLAGS in the environment adds options of g++, such as sanitizers.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mal_trt.cuda

KERNELS = Path(mal_trt.cuda.__file__).parent / "kernels"
SHIM = Path(__file__).parent / "cuda_on_host.h"
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
TYPES = {"int": np.int32, "int64": np.int64, "float": np.float32}


def compiled(folder: Path) -> dict[str, Callable[..., None]]:
    """All kernels of mal_trt/cuda/kernels by name, compiled into a folder."""
    functions: dict[str, Callable[..., None]] = {}
    for source in sorted(KERNELS.glob("*.cu")):
        functions.update(compile_file(source, folder))
    return functions


def compile_file(source: Path, folder: Path) -> dict[str, Callable[..., None]]:
    """The kernels of one file."""
    kernels = {name: _parameters(text) for name, text in KERNEL.findall(source.read_text())}
    lines = [f'#include "{SHIM}"', f'#include "{source}"']
    for name, parameters in kernels.items():
        given = ", ".join(f"{kind} a{i}" for i, kind in enumerate(parameters))
        passed = ", ".join(f"a{i}" for i in range(len(parameters)))
        head = f'extern "C" void run_{name}(const unsigned *grid, const unsigned *block, {given})'
        lines.append(f"{head} {{ every_thread(grid, block, [&] {{ {name}({passed}); }}); }}")
    wrapper, library = folder / f"{source.stem}.cpp", folder / f"{source.stem}.so"
    wrapper.write_text("\n".join(lines) + "\n")
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra"]
    options += os.environ.get("KERNEL_FLAGS", "").split()
    plain = {**os.environ, "LD_PRELOAD": ""}  # a sanitizer is for the kernels, not for the compiler
    command = ["g++", *options, str(wrapper), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True, env=plain)
    loaded = ctypes.CDLL(str(library))
    return {name: _function(loaded, name, parameters) for name, parameters in kernels.items()}


def _parameters(text: str) -> list[str]:
    """C types of a list of parameters."""
    return [re.sub(r"\w+$", "", part.strip()).strip() for part in text.split(",")]


def _function(library: Any, name: str, parameters: list[str]) -> Callable[..., None]:
    function = library[f"run_{name}"]
    function.restype = None
    types = [np.dtype(np.uint64 if kind.endswith("*") else TYPES[kind]) for kind in parameters]
    extents = [ctypes.c_uint * 3] * 2
    function.argtypes = [*extents, *(np.ctypeslib.as_ctypes_type(kind) for kind in types)]

    def run(grid: Any, block: Any, memory: Any, *arguments: np.generic) -> None:
        assert [a.dtype for a in arguments] == types, f"{name}: {arguments}, but it takes {parameters}"
        function((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), *(a.item() for a in arguments))

    return run
