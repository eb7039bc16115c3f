"""The driver as the code asks it, played by a library compiled here; and without a driver."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return %d; }
int cuDriverGetVersion(int* v) { *v = 12060; return 0; }
int cuDeviceGetCount(int* n) { *n = %d; return 0; }
int cuDeviceGet(int* d, int i) { *d = i; return 0; }
int cuDeviceGetName(char* s, int n, int d) { strncpy(s, "Orin", n); return 0; }
int cuDeviceTotalMem_v2(size_t* b, int d) { *b = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int* v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : %d; return 0; }
int cuDevicePrimaryCtxRetain(void** c, int d) { return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return 0; }
int cuCtxPushCurrent_v2(void* c) { return 0; }
int cuCtxPopCurrent_v2(void** c) { return 0; }
int cuMemGetInfo_v2(size_t* f, size_t* t) { *f = (size_t)5 << 30; *t = (size_t)8 << 30; return 0; }
"""
ASK = """
import json
import sys
from dataclasses import asdict
from mal_trt.base.gpu import find_gpus
print(json.dumps(asdict(find_gpus(free=sys.argv[1:] != ["quick"]))))
"""


def machine(
    folder: Path, source: str | None, visible: str | None = None, quick: tuple[str, ...] = ()
) -> dict[str, object]:
    """find_gpus() in a process whose driver is the compiled source, or that has none."""
    if source is not None:
        if shutil.which("gcc") is None or sys.platform != "linux":
            pytest.skip("needs gcc on Linux to compile the stand-in driver")
        (folder / "cuda.c").write_text(source)
        library = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "cuda.c")]
        subprocess.run(library, check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK, *quick],
        cwd=folder,
        env={
            **{"LD_LIBRARY_PATH": str(folder), "PATH": ""},
            **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_gpu_with_memory_of_its_own(tmp_path: Path) -> None:
    gpu = {"name": "Orin", "compute_capability": "8.7", "total_bytes": 8 << 30, "free_bytes": 5 << 30}
    assert machine(tmp_path, DRIVER % (0, 1, 0)) == {"cuda": "12.6", "gpus": [gpu], "problem": ""}


def test_a_jetson_shares_the_processors_memory(tmp_path: Path) -> None:
    (gpu,) = machine(tmp_path, DRIVER % (0, 1, 1))["gpus"]  # type: ignore[misc]
    assert gpu["free_bytes"] not in (None, 5 << 30)


@pytest.mark.parametrize(
    ("code", "count", "problem"),
    [(100, 1, "sees no GPU"), (803, 1, "different versions"), (42, 1, "error 42"), (0, 0, "sees no GPU")],
)
def test_a_driver_that_does_not_work(code: int, count: int, problem: str, tmp_path: Path) -> None:
    found = machine(tmp_path, DRIVER % (code, count, 0))
    assert found["gpus"] == [] and problem in str(found["problem"])


def test_a_library_that_is_no_driver(tmp_path: Path) -> None:
    assert "is not NVIDIA's driver" in str(machine(tmp_path, "int nothing(void) { return 0; }")["problem"])


def test_no_driver(tmp_path: Path) -> None:
    import ctypes.util

    if ctypes.util.find_library("cuda"):
        pytest.skip("this machine has a driver")
    assert "no NVIDIA driver" in str(machine(tmp_path, None)["problem"])


@pytest.mark.parametrize("visible", ["", "-1", " -1,0", "7", "GPU-8a3f", "MIG-c0ffee"])
def test_gpus_that_are_hidden(visible: str, tmp_path: Path) -> None:
    """Put into words where the driver finds no GPU; one that it finds is its affair."""
    problem = str(machine(tmp_path, DRIVER % (100, 1, 0), visible)["problem"])
    every = visible.strip(" ,0").startswith("-1") or not visible
    does = "hides every GPU" if every else "leaves only those GPUs, numbered from 0 in that order"
    assert problem.startswith(f"the driver sees no GPU: CUDA_VISIBLE_DEVICES={visible!r} {does}; unset it")
    assert machine(tmp_path, DRIVER % (0, 1, 0), visible)["problem"] == ""


def test_no_gpu_is_started_unless_its_free_memory_is_asked_for(tmp_path: Path) -> None:
    counted = DRIVER.replace("void** c, int d) { return 0; }", "void** c, int d) { return 2; }")
    never = counted.replace("int cuDevicePrimaryCtxRetain", "#include <stdlib.h>\nint cuDevicePrimaryCtxRetain")
    never = never.replace("{ return 2; }", "{ abort(); }")
    (gpu,) = machine(tmp_path, never % (0, 1, 0), quick=("quick",))["gpus"]  # type: ignore[misc]
    assert gpu["free_bytes"] is None and gpu["total_bytes"] == 8 << 30
    (gpu,) = machine(tmp_path, counted % (0, 1, 0))["gpus"]  # type: ignore[misc]
    assert gpu["free_bytes"] is None  # a GPU that another program holds for itself
