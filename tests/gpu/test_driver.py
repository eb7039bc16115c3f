"""The CUDA layer on a real GPU: memory, order, kernels, graphs, errors, leaks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from mal_trt.cuda import compile as compiling
from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.compile import FLAGS, choose_target, find_compiler
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.cuda.module import Kernels

pytestmark = pytest.mark.gpu

SCALE = """
extern "C" __global__ void scale(float* x, float factor, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= factor;
}
"""
COUNT = 100_003
CRASH = """
import numpy as np
from mal_trt.cuda import compile as compiling
from mal_trt.cuda.driver import CudaError
from mal_trt.cuda.module import Kernels
from mal_trt.cuda.open import open_driver
from pathlib import Path
import sys
compiling.FOLDER = Path(sys.argv[1])
driver = open_driver(provider=sys.argv[2])
with driver.current():
    stream = driver.create_stream()
    kernels = Kernels(driver, "scale.cu")
    kernels.launch("scale", (1, 1, 1), (1, 1, 1), stream, np.uint64(16), np.float32(1), np.int32(1))
    try:
        driver.synchronize(stream)
    except CudaError as error:
        print(error)
driver.close()
print("closed")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiling, "FOLDER", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "scale.cu").write_text(SCALE)
    return tmp_path


@pytest.fixture
def kernels(driver: Driver, folder: Path) -> Iterator[Kernels]:
    made = Kernels(driver, "scale.cu")
    yield made
    made.close()


@pytest.fixture
def stream(driver: Driver) -> Iterator[int]:
    made = driver.create_stream()
    yield made
    driver.destroy_stream(made)


@pytest.fixture
def data(driver: Driver) -> Iterator[int]:
    """Pointer to COUNT floats."""
    pointer = driver.allocate(4 * COUNT)
    yield pointer
    driver.free(pointer)


def scale(kernels: Kernels, stream: int, pointer: int, factor: float) -> None:
    grid = ((COUNT + 255) // 256, 1, 1)
    kernels.launch("scale", grid, (256, 1, 1), stream, np.uint64(pointer), np.float32(factor), np.int32(COUNT))


def read(driver: Driver, pointer: int, stream: int) -> np.ndarray:
    values = np.empty(COUNT, np.float32)
    driver.copy_to_host(values, pointer, stream)
    driver.synchronize(stream)
    return values


def test_device(driver: Driver) -> None:
    assert driver.device.name and driver.device.compute_capability >= (5, 0)
    free, total = driver.memory()
    assert 0 < free <= total


def test_up_kernel_down(driver: Driver, kernels: Kernels, stream: int, data: int) -> None:
    values = np.random.default_rng(1).standard_normal(COUNT, np.float32)
    driver.copy_to_device(data, values, stream)
    scale(kernels, stream, data, 3)
    np.testing.assert_array_equal(read(driver, data, stream), values * np.float32(3))
    driver.fill(data + 4, 0, 4 * (COUNT - 1), stream)
    assert np.flatnonzero(read(driver, data, stream)).tolist() == [0]


def test_growing_buffers(driver: Driver, stream: int) -> None:
    buffer, staging = DeviceBuffer(driver), Staging(driver)
    assert buffer.reserve(100) % 256 == 0
    for size in (1000, 500, 1 << 20):
        memory = staging.reserve(size)
        memory[:size] = np.arange(size) % 251
        staging.upload(size, stream)
        driver.fill(staging.pointer, 255, 10, stream)
        staging.download(size, stream)
        driver.synchronize(stream)
        assert (memory[:10] == 255).all() and (memory[10:size] == np.arange(10, size) % 251).all()
    buffer.close()
    staging.close()


def test_events_order_and_time(driver: Driver, kernels: Kernels, stream: int, data: int) -> None:
    """A stream that waits sees what came before; a thousand kernels take time."""
    other, first, last = driver.create_stream(), driver.create_event(timing=True), driver.create_event(timing=True)
    driver.copy_to_device(data, np.ones(COUNT, np.float32), stream)
    driver.record(first, stream)
    for turn in range(1000):
        scale(kernels, stream, data, 2.0 if turn % 2 else 0.5)
    driver.record(last, stream)
    driver.wait(other, last)
    assert (read(driver, data, other) == 1).all()
    driver.synchronize_event(last)
    assert 1e-6 < driver.elapsed(first, last) < 10
    driver.destroy_event(first)
    driver.destroy_event(last)
    driver.destroy_stream(other)


def test_graphs(driver: Driver, kernels: Kernels, stream: int, data: int) -> None:
    driver.copy_to_device(data, np.ones(COUNT, np.float32), stream)
    driver.synchronize(stream)
    if driver.provider == "pycuda":
        with pytest.raises(CudaError, match="CUDA_ERROR_NOT_SUPPORTED"):
            driver.begin_capture(stream)
        return
    driver.begin_capture(stream)
    scale(kernels, stream, data, 2)
    scale(kernels, stream, data, 3)
    graph = driver.end_capture(stream)
    assert (read(driver, data, stream) == 1).all()
    for _ in range(3):
        driver.launch_graph(graph, stream)
    assert (read(driver, data, stream) == 6**3).all()
    driver.destroy_graph(graph)
    driver.begin_capture(stream)
    with pytest.raises(CudaError, match="CAPTURE"):
        driver.synchronize(stream)
    with pytest.raises(CudaError, match="CAPTURE"):
        driver.end_capture(stream)
    scale(kernels, stream, data, 2)
    assert (read(driver, data, stream) == 2 * 6**3).all()


def test_errors_leave_the_rest_usable(driver: Driver, kernels: Kernels, stream: int, data: int) -> None:
    with pytest.raises(CudaError, match=r"CUDA_ERROR_OUT_OF_MEMORY; use a smaller --batch"):
        driver.allocate(driver.memory()[1] + (1 << 20))
    with pytest.raises(CudaError, match="finding kernel none failed with CUDA_ERROR_NOT_FOUND"):
        kernels.launch("none", (1, 1, 1), (1, 1, 1), stream)
    with pytest.raises(CudaError, match="loading kernels failed with CUDA_ERROR_"):
        driver.load_module(b"no kernels" * 100)
    driver.copy_to_device(data, np.ones(COUNT, np.float32), stream)
    scale(kernels, stream, data, 2)
    assert (read(driver, data, stream) == 2).all()


def test_code_that_the_driver_finishes(driver: Driver, folder: Path, stream: int, data: int) -> None:
    """PTX, as for a GPU newer than the compiler."""
    compiler = find_compiler()
    target = choose_target(driver.device.compute_capability, compiler).replace("sm_", "compute_")
    module = driver.load_module(compiler.compile(folder / "scale.cu", target, FLAGS))
    driver.copy_to_device(data, np.ones(COUNT, np.float32), stream)
    arguments = [np.uint64(data), np.float32(5), np.int32(COUNT)]
    driver.launch(driver.function(module, "scale"), (COUNT // 256 + 1, 1, 1), (256, 1, 1), stream, arguments)
    assert (read(driver, data, stream) == 5).all()
    driver.unload_module(module)


def test_two_threads(driver: Driver, kernels: Kernels) -> None:
    right: list[bool] = []

    def work(factor: int) -> None:
        with driver.current():
            stream, pointer = driver.create_stream(), driver.allocate(4 * COUNT)
            for _ in range(50):
                driver.copy_to_device(pointer, np.ones(COUNT, np.float32), stream)
                scale(kernels, stream, pointer, factor)
                right.append(bool((read(driver, pointer, stream) == factor).all()))
            driver.free(pointer)
            driver.destroy_stream(stream)

    threads = [Thread(target=work, args=(factor,)) for factor in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 100


def test_no_leak(driver: Driver, kernels: Kernels) -> None:
    def turn() -> None:
        stream, event = driver.create_stream(), driver.create_event()
        pointer, (memory, _) = driver.allocate(1 << 20), driver.allocate_pinned(1 << 16)
        driver.copy_to_device(pointer, memory, stream)
        driver.record(event, stream)
        driver.synchronize_event(event)
        driver.free_pinned(memory)
        driver.free(pointer)
        driver.destroy_event(event)
        driver.destroy_stream(stream)

    turn()
    before, living = driver.memory()[0], driver.living
    for _ in range(500):
        turn()
    assert driver.living == living
    assert driver.memory()[0] >= before - (16 << 20)  # others may use the GPU too; a leak would be 500 MiB


def test_memory_of_pytorch(driver: Driver, kernels: Kernels, stream: int) -> None:
    """One context for both: a kernel works on a tensor."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    tensor = torch.ones(COUNT, device="cuda")
    torch.cuda.synchronize()
    scale(kernels, stream, tensor.data_ptr(), 4)
    driver.synchronize(stream)
    assert bool((tensor == 4).all())


def test_a_kernel_that_writes_nowhere(driver: Driver, folder: Path) -> None:
    """The error is named, and closing afterwards neither hangs nor fails. In a process of its own: it is lost then."""
    command = [sys.executable, "-c", CRASH, str(folder), driver.provider]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "CUDA: waiting for a stream failed with CUDA_ERROR_ILLEGAL_ADDRESS",
        "closed",
    ]
