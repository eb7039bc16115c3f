"""Kernels are really compiled, for every GPU, without one; the cache; what is said when that fails."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from host_cuda import HostDriver
from mal_trt.base.errors import RunError
from mal_trt.base.gpu import Machine
from mal_trt.cuda import compile as compiling
from mal_trt.cuda.compile import FLAGS, FOLDER, Compiler, choose_target, compiled, find_compiler
from mal_trt.cuda.compiler_log import first_error
from mal_trt.cuda.driver import CudaError, Device
from mal_trt.cuda.module import Kernels
from mal_trt.cuda.nvcc import Nvcc, find_nvcc
from mal_trt.cuda.nvrtc import open_nvrtc

SOURCES = sorted(path.name for path in FOLDER.glob("*.cu"))
# Turing, A100, RTX 30, Orin, RTX 40, Hopper, Blackwell, RTX 50.
GPUS = (75, 80, 86, 87, 89, 90, 100, 120)
DEVICE = Device(0, "RTX 3060", (8, 6), False)


class Played:
    """A test double of a compiler: counts, and gives the source back."""

    title, major = "played 1.0", 13

    def __init__(self, *known: int) -> None:
        self.known, self.calls = list(known or GPUS), 0

    def architectures(self) -> list[int]:
        return self.known

    def compile(self, path: Path, target: str, flags: tuple[str, ...]) -> bytes:
        self.calls += 1
        return f"{target} {path.read_text()}".encode()


@pytest.fixture
def nvrtc() -> Compiler:
    found = open_nvrtc()
    if found is None:
        pytest.skip("cuda-bindings or NVRTC is not installed")
    return found


@pytest.fixture
def nvcc() -> Compiler:
    found = find_nvcc()
    if found is None:
        pytest.skip("nvcc is not installed")
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Kernels of a test, and an empty cache."""
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    (tmp_path / "twice.cu").write_text(
        '#include "shared.cuh"\n'
        'extern "C" __global__ void twice(float* x, float y) { x[threadIdx.x] = x[threadIdx.x] * FACTOR + y; }\n'
    )
    (tmp_path / "shared.cuh").write_text("#define FACTOR 2.0f\n")
    return tmp_path


@pytest.mark.parametrize("source", SOURCES)
def test_nvrtc_compiles_every_kernel(nvrtc: Compiler, source: str) -> None:
    """The oldest and the newest GPU here, those between in the slow test."""
    for gpu in (GPUS[0], GPUS[-1]):
        image = nvrtc.compile(FOLDER / source, f"sm_{gpu}", FLAGS)
        assert image[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_every_kernel_for_every_gpu(nvrtc: Compiler, source: str) -> None:
    for gpu in GPUS[1:-1]:
        assert nvrtc.compile(FOLDER / source, f"sm_{gpu}", FLAGS)[:4] == b"\x7fELF"


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_nvcc_compiles_every_kernel(nvcc: Compiler, source: str) -> None:
    for gpu in sorted({*GPUS} & {*nvcc.architectures()}):
        assert nvcc.compile(FOLDER / source, f"sm_{gpu}", FLAGS)[:4] == b"\x7fELF"


@pytest.mark.parametrize("source", SOURCES)
def test_kernels_round_as_the_processor_does(nvrtc: Compiler, source: str) -> None:
    """In single precision nothing is fused, approximated or flushed to zero (of doubles, CUDA's own exp is fused)."""
    ptx = nvrtc.compile(FOLDER / source, "compute_75", FLAGS).decode()
    assert ".visible .entry" in ptx
    assert not re.findall(r"\b(?:fma|\w+\.(?:approx|full)|\w+(?:\.\w+)*\.ftz)[.\w]*\.f32\b", ptx)


@pytest.mark.parametrize("make", [open_nvrtc, find_nvcc])
def test_flags_and_files_beside(make: Callable[[], Compiler | None], folder: Path) -> None:
    """Both compilers find a .cuh beside the file, and do not fuse."""
    compiler = make()
    if compiler is None:
        pytest.skip("not installed")
    with_flags = compiler.compile(folder / "twice.cu", "compute_75", FLAGS)
    assert b"twice" in with_flags and b"fma.rn" not in with_flags and b"mul" in with_flags
    assert b"fma.rn" in compiler.compile(folder / "twice.cu", "compute_75", FLAGS[:1])
    assert {75, 80, 86, 90} <= {*compiler.architectures()}
    (folder / "broken.cu").write_text('extern "C" __global__ void broken() { nonsense; }\n')
    with pytest.raises(RunError, match=r"broken.cu does not compile with \w+ [\d.]+ for sm_86: .*nonsense"):
        compiler.compile(folder / "broken.cu", "sm_86", FLAGS)


def test_cache(folder: Path) -> None:
    compiler = Played()
    image = compiled("twice.cu", DEVICE, compiler)
    assert image.startswith(b"sm_86 #include") and compiled("twice.cu", DEVICE, compiler) == image
    assert compiler.calls == 1
    (entry,) = (folder / "cache" / "mal-trt" / "kernels").iterdir()
    for broken in (b"", entry.read_bytes()[:-1], b"x" * 100):
        entry.write_bytes(broken)
        assert compiled("twice.cu", DEVICE, compiler) == image
    assert compiler.calls == 4
    assert compiled("twice.cu", DEVICE, compiler) == image and compiler.calls == 4


def test_what_the_cache_depends_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Played()

    def compiles() -> bool:
        before = compiler.calls
        compiled("twice.cu", DEVICE, compiler)
        return compiler.calls > before

    assert compiles() and not compiles()
    (folder / "shared.cuh").write_text("#define FACTOR 3.0f\n")
    assert compiles() and not compiles()
    compiler.title = "played 1.1"
    assert compiles() and not compiles()
    monkeypatch.setattr(compiling, "FLAGS", ("-std=c++17",))
    assert compiles() and not compiles()
    compiled("twice.cu", Device(0, "A100", (8, 0), False), compiler)
    assert compiler.calls == 5


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    (folder / "cache").write_text("a file where the folder should be")
    compiler = Played()
    assert compiled("twice.cu", DEVICE, compiler) == compiled("twice.cu", DEVICE, compiler)
    assert compiler.calls == 2


def test_target() -> None:
    assert choose_target((8, 6), Played()) == "sm_86"
    assert choose_target((12, 1), Played()) == "compute_120"  # newer than the compiler: the driver finishes it
    assert choose_target((8, 8), Played()) == "compute_87"
    with pytest.raises(RunError, match=r"played 1.0 does not know GPUs of compute capability 7.0 any more"):
        choose_target((7, 0), Played())


def test_a_compiler_that_fits_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of a newer CUDA than the driver's, and one line where there is none."""
    older = Played()
    older.major = 12
    monkeypatch.setattr("mal_trt.cuda.nvrtc.open_nvrtc", Played)
    monkeypatch.setattr("mal_trt.cuda.nvcc.find_nvcc", lambda: older)
    for cuda, expected in ((None, 13), ("13.0", 13), ("12.6", 12)):
        monkeypatch.setattr(compiling, "find_gpus", lambda free=True, cuda=cuda: Machine(cuda, (), ""))
        assert find_compiler().major == expected
    monkeypatch.setattr("mal_trt.cuda.nvcc.find_nvcc", lambda: None)
    with pytest.raises(RunError, match=r"played 1.0 is too new for this driver \(CUDA 12.6\)"):
        find_compiler()
    monkeypatch.setattr("mal_trt.cuda.nvrtc.open_nvrtc", lambda: None)
    with pytest.raises(RunError, match="there is no compiler for kernels; pip install nvidia-cuda-nvrtc"):
        find_compiler()


def test_missing_file_and_log() -> None:
    with pytest.raises(RunError, match=r"none.cu: cannot be read"):
        compiled("none.cu", DEVICE, Played())
    assert first_error("\0") == "no reason given"
    assert first_error("In file included\n  a.cu(3):   error: why\nmore") == "a.cu(3): error: why"


def test_nvcc_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvcc"
    program.write_text("#!/bin/sh\necho no\n")
    program.chmod(0o755)
    with pytest.raises(RunError, match="does not say its version"):
        Nvcc(str(program))
    with pytest.raises(RunError, match="does not run"):
        Nvcc(str(tmp_path / "none"))
    monkeypatch.setattr(shutil, "which", lambda place: str(program) if place == "nvcc" else None)
    assert find_nvcc() is None


def test_kernels_by_name() -> None:
    """The class that launchers use, over the host's double."""
    seen: list[object] = []
    driver = HostDriver({"twice": lambda grid, block, memory, *arguments: seen.append((grid, block, arguments))})
    with driver.current():
        kernels, stream = Kernels(driver, "twice.cu"), driver.create_stream()
        for _ in range(2):
            kernels.launch("twice", (1, 2, 3), (4, 1, 1), stream, np.uint64(7), np.int32(8))
        assert seen == [((1, 2, 3), (4, 1, 1), (7, 8))] * 2
        assert driver.calls["function"] == 1
        with pytest.raises(CudaError, match="finding kernel thrice failed with CUDA_ERROR_NOT_FOUND"):
            kernels.launch("thrice", (1, 1, 1), (1, 1, 1), stream)
        kernels.close()
        kernels.close()
        assert driver.living["module"] == 0
