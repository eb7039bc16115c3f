"""Which package talks to CUDA, and a driver of it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from types import MappingProxyType

from mal_trt.base.errors import InputError, RunError, one_line
from mal_trt.base.gpu import find_gpus, hidden
from mal_trt.cuda.driver import Driver

VARIABLE = "MAL_TRT_CUDA"
# In the order of preference: provider -> the package that is imported, how to install it.
PROVIDERS = MappingProxyType(
    {
        "cuda-python": ("cuda.bindings", 'pip install "mal-trt[gpu]" (or cuda-bindings alone)'),
        "pycuda": ("pycuda", 'pip install "mal-trt[pycuda]", which needs the CUDA toolkit'),
    }
)


def open_driver(index: int = 0, provider: str | None = None) -> Driver:
    """The GPU of a number, by the provider named, else by MAL_TRT_CUDA, else by the first that is installed.

    InputError without a GPU or provider; CudaError if CUDA refuses. Close it: what is still living goes with it.
    """
    chosen = choose_provider(provider)
    machine = find_gpus(free=False)
    if not machine.gpus:
        raise InputError(f"no usable GPU: {machine.problem}")
    if not 0 <= index < len(machine.gpus):
        why = f" ({hidden()})" if hidden() else ""
        raise InputError(f"GPU {index}: this machine's GPUs are 0 to {len(machine.gpus) - 1}{why}")
    try:
        if chosen == "pycuda":
            from mal_trt.cuda.with_pycuda import PycudaDriver

            return PycudaDriver(index)
        from mal_trt.cuda.cuda_python import CudaPythonDriver

        return CudaPythonDriver(index)
    except ImportError as error:
        raise RunError(f"{chosen} cannot be loaded ({one_line(error)}); run: {PROVIDERS[chosen][1]}") from None


def choose_provider(provider: str | None = None) -> str:
    """Name of the provider to use; InputError if it, or any, is not installed, or if there is none of that name."""
    named = provider or os.environ.get(VARIABLE) or None
    where = "provider" if provider else VARIABLE
    if named is not None and named not in PROVIDERS:
        raise InputError(f"{where} {named!r}: expected one of {', '.join(PROVIDERS)}")
    offered = installed()
    if named is not None and named not in offered:
        raise InputError(f"{where} {named}: not installed; run: {PROVIDERS[named][1]}")
    if not offered:
        raise InputError(f"no package that talks to CUDA is installed; run: {PROVIDERS['cuda-python'][1]}")
    return named or offered[0]


def installed() -> list[str]:
    """Providers that are installed, the preferred first. Imports none of them."""
    return [name for name, (package, _) in PROVIDERS.items() if _present(package)]


def _present(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a package whose parent is missing
        return False
