"""The NVIDIA driver and its GPUs, asked through the driver's own library: no CUDA toolkit, PyTorch or TensorRT."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass

from mal_trt.base.memory import read_memory

LIBRARY = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
# CUdevice_attribute, part of the driver's binary interface.
MAJOR, MINOR, INTEGRATED = 75, 76, 18
NO_GPU = 100
# Hides GPUs: numbers, "GPU-..." or "MIG-..." of those to see, in the order of their new numbers. The driver reads it:
# what is found here is what is left.
VISIBLE = "CUDA_VISIBLE_DEVICES"
# Codes of cuInit that say what to do.
REASONS = {
    3: "the driver could not be initialised; restart the machine",
    35: "the driver is older than the libraries that use it; install a newer driver",
    NO_GPU: "the driver sees no GPU (a container needs `--gpus all` or the NVIDIA runtime)",
    802: "the GPU is not ready yet; try again in a minute",
    803: "the driver and its libraries have different versions; restart the machine",
    804: "this GPU does not support the compatibility libraries in use; install a newer driver",
    999: "the driver reports an unknown error; restart the machine",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU, or an instance of one (MIG). compute_capability: such as "8.6". Memory in bytes, the instance's own;
    free_bytes, which counts what other programs took, is None where it was not asked for or cannot be told."""

    name: str
    compute_capability: str
    total_bytes: int
    free_bytes: int | None


@dataclass(frozen=True)
class Machine:
    """What the driver says. cuda: newest CUDA it runs, such as "13.2". problem: why there is no usable GPU, or ""."""

    cuda: str | None
    gpus: tuple[Gpu, ...]
    problem: str

    @property
    def gpu(self) -> Gpu | None:
        """The first GPU, which is the one used."""
        return self.gpus[0] if self.gpus else None


def find_gpus(free: bool = True) -> Machine:
    """Ask the driver; never raises. free: also how much memory is free, for which every GPU is started: that takes time
    and some of the memory."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return Machine(None, (), f"no NVIDIA driver ({LIBRARY} cannot be loaded)")
    try:
        return _ask(driver, free)
    except AttributeError as error:  # a function is missing: a library of that name, but not the driver's
        return Machine(None, (), f"{LIBRARY} is not NVIDIA's driver ({error})")


def hidden() -> str:
    """What CUDA_VISIBLE_DEVICES does, as a sentence; "" where it is not set."""
    value = os.environ.get(VISIBLE)
    if value is None:
        return ""
    first = value.split(",")[0].strip()
    if first in ("", "-1"):
        return f"{VISIBLE}={value!r} hides every GPU"
    return f"{VISIBLE}={value!r} leaves only those GPUs, numbered from 0 in that order"


def platform_tag() -> str:
    """Operating system and processor: `linux-x86_64`, `linux-aarch64`, `windows-x86_64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }"


def _ask(driver: ctypes.CDLL, free: bool) -> Machine:
    code = driver.cuInit(0)
    version = ctypes.c_int()
    known = driver.cuDriverGetVersion(ctypes.byref(version)) == 0
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}" if known else None
    why = hidden()
    if code == NO_GPU and why:
        return Machine(cuda, (), f"the driver sees no GPU: {why}; unset it, or name a GPU of `nvidia-smi -L`")
    if code:
        return Machine(cuda, (), f"NVIDIA driver error {code}: {REASONS.get(code, 'the driver does not work')}")
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Machine(cuda, (), f"the driver sees no GPU: {why}; unset it" if why else REASONS[NO_GPU])
    found = [_gpu(driver, index, free) for index in range(count.value)]
    return Machine(cuda, tuple(found), "")


def _gpu(driver: ctypes.CDLL, index: int, ask_free: bool) -> Gpu:
    device = ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    total = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    major, minor, integrated = (_attribute(driver, device, wanted) for wanted in (MAJOR, MINOR, INTEGRATED))
    # A Jetson's GPU shares the memory of the processor, where the driver does not count what caches would give back.
    free: int | None = None
    if ask_free:
        free = read_memory().available if integrated else _free_memory(driver, device)
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", total.value, free)


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def _free_memory(driver: ctypes.CDLL, device: ctypes.c_int) -> int | None:
    context = ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        driver.cuCtxPushCurrent_v2(context)
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return None if failed else free.value
