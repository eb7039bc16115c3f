"""The test double itself: it must notice what CUDA would leave undefined, or tests that use it prove nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import host_cuda
from host_cuda import HostDriver
from host_memory import FREED, HostMemory
from mal_trt.cuda.buffers import DeviceBuffer, Staging
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.cuda.module import Kernels


def double(grid: Any, block: Any, memory: HostMemory, pointer: np.uint64, count: np.int32) -> None:
    memory.array(int(pointer), np.uint8, int(count))[:] *= 2


@pytest.fixture(params=["eager", "deferred"])
def driver(request: pytest.FixtureRequest) -> Iterator[HostDriver]:
    made = HostDriver({"double": double}, mode=request.param)
    with made.current():
        yield made


def public(kind: type) -> dict[str, inspect.Signature | None]:
    members = {name: member for name, member in vars(kind).items() if not name.startswith("_")}
    return {name: inspect.signature(m) if inspect.isfunction(m) else None for name, m in members.items()}


def test_it_has_the_driver_s_methods() -> None:
    wanted, offered = public(Driver), public(HostDriver)
    for name, signature in wanted.items():
        if signature is not None and name != "current":
            assert offered[name] == signature, name


def test_up_launch_down(driver: HostDriver) -> None:
    stream, pointer = driver.create_stream(), driver.allocate(8)
    up, _ = driver.allocate_pinned(8)
    down = np.zeros(8, np.uint8)
    kernels = Kernels(driver, "double.cu")
    up[:] = np.arange(8)
    driver.copy_to_device(pointer, up, stream)
    kernels.launch("double", (1, 1, 1), (4, 1, 1), stream, np.uint64(pointer), np.int32(4))
    driver.copy_to_host(down, pointer, stream)
    driver.synchronize(stream)
    assert down.tolist() == [0, 2, 4, 6, 4, 5, 6, 7]
    assert driver.living == {"memory": 1, "pinned": 1, "stream": 1, "event": 0, "module": 1, "graph": 0}
    kernels.close()
    kernels.close()
    driver.free(pointer)
    driver.free_pinned(up)
    driver.destroy_stream(stream)
    assert not any(driver.living.values())


def test_deferred_work_waits_for_whoever_waits() -> None:
    driver = HostDriver(mode="deferred")
    with driver.current():
        first, second, event = driver.create_stream(), driver.create_stream(), driver.create_event()
        pointer, out = driver.allocate(4), np.zeros(4, np.uint8)
        driver.fill(pointer, 1, 4, first)
        driver.record(event, first)
        driver.fill(pointer, 2, 4, first)
        driver.wait(second, event)
        driver.copy_to_host(out, pointer, second)
        assert not out.any()
        driver.synchronize(second)
        assert out.tolist() == [1] * 4  # the second fill comes after the event
        driver.synchronize(first)
        assert driver.host.array(pointer, np.uint8, 4).tolist() == [2] * 4


def test_deferred_work_without_a_wait_sees_old_memory() -> None:
    driver = HostDriver(mode="deferred")
    with driver.current():
        first, second = driver.create_stream(), driver.create_stream()
        pointer, out = driver.allocate(4), np.zeros(4, np.uint8)
        driver.fill(pointer, 1, 4, first)
        driver.copy_to_host(out, pointer, second)
        driver.synchronize(second)
        assert 1 not in out


@pytest.mark.parametrize(
    "misuse",
    [
        lambda d, p, s: d.copy_to_host(np.zeros(17, np.uint8), p, s),
        lambda d, p, s: d.fill(p + 1, 0, 16, s),
        lambda d, p, s: (d.free(p), d.fill(p, 0, 1, s)),
        lambda d, p, s: (d.free(p), d.free(p)),
        lambda d, p, s: d.synchronize(s + 1),
        lambda d, p, s: d.copy_to_device(p, np.zeros((4, 4), np.uint8)[:, :2], s),
        lambda d, p, s: d.host.array(p + 1, np.float32, 1),
        lambda d, p, s: (
            d.fill(p, 0, 16, s),
            d.free(p),
            d.enqueue(s, lambda: d.host.array(p, "u1", 1)),
            d.synchronize(s),
        ),
        lambda d, p, s: d.launch((d.load_module(b""), "double"), (1, 1, 1), (1, 1, 1), s, [1]),
        lambda d, p, s: d.launch((d.load_module(b""), "double"), (0, 1, 1), (1, 1, 1), s, []),
        lambda d, p, s: (d.close(), d.create_stream()),
    ],
)
def test_misuse_is_noticed(driver: HostDriver, misuse: Any) -> None:
    pointer, stream = driver.allocate(16), driver.create_stream()
    with pytest.raises(AssertionError):
        misuse(driver, pointer, stream)


def test_pinned_memory_freed_too_early() -> None:
    driver = HostDriver(mode="deferred")
    with driver.current():
        stream, pointer = driver.create_stream(), driver.allocate(8)
        memory, _ = driver.allocate_pinned(8)
        driver.copy_to_device(pointer, memory[4:], stream)
        driver.free_pinned(memory)
        assert (memory == FREED).all()
        with pytest.raises(AssertionError, match="before its copy"):
            driver.synchronize(stream)


def test_kernels_are_those_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_cuda, "FOLDER", tmp_path)
    (tmp_path / "a.cu").write_text('extern "C" __global__ void one(const float *x,\n  int64 n, int m, float f) {}\n')
    driver = HostDriver({"one": lambda *_: None, "two": lambda *_: None})
    with driver.current():
        kernels, stream = Kernels(driver, "a.cu"), driver.create_stream()
        right = [np.uint64(0), np.int64(1), np.int32(1), np.float32(1)]
        kernels.launch("one", (1, 1, 1), (1, 1, 1), stream, *right)
        for wrong in (right[:3], [*right, np.int32(1)], [right[0], np.int32(1), *right[2:]]):
            with pytest.raises(AssertionError, match="one takes"):
                kernels.launch("one", (1, 1, 1), (1, 1, 1), stream, *wrong)
        with pytest.raises(CudaError, match="NOT_FOUND"):
            kernels.launch("two", (1, 1, 1), (1, 1, 1), stream)


def test_needs_current() -> None:
    driver = HostDriver()
    with pytest.raises(AssertionError, match="outside of current"):
        driver.allocate(1)
    with driver.current(), driver.current():
        driver.allocate(1)
    with pytest.raises(AssertionError, match="outside of current"):
        driver.create_stream()


def test_graph(driver: HostDriver) -> None:
    stream, pointer = driver.create_stream(), driver.allocate(4)
    kernels = Kernels(driver, "double.cu")
    driver.fill(pointer, 1, 4, stream)
    driver.begin_capture(stream)
    kernels.launch("double", (1, 1, 1), (4, 1, 1), stream, np.uint64(pointer), np.int32(4))
    graph = driver.end_capture(stream)
    driver.synchronize(stream)
    assert driver.host.array(pointer, np.uint8, 4).tolist() == [1] * 4  # recorded, not run
    for _ in range(3):
        driver.launch_graph(graph, stream)
    driver.synchronize(stream)
    assert driver.host.array(pointer, np.uint8, 4).tolist() == [8] * 4
    driver.destroy_graph(graph)
    with pytest.raises(AssertionError):
        driver.launch_graph(graph, stream)


def test_what_cannot_be_captured(driver: HostDriver) -> None:
    stream = driver.create_stream()
    for forbidden in (lambda: driver.allocate(1), lambda: driver.synchronize(stream)):
        driver.begin_capture(stream)
        with pytest.raises(CudaError, match="CAPTURE_UNSUPPORTED"):
            forbidden()
        with pytest.raises(CudaError, match="CAPTURE_INVALIDATED"):
            driver.end_capture(stream)
        driver.synchronize(stream)  # usable again


def test_memory_limit() -> None:
    driver = HostDriver(limit=1000)
    with driver.current():
        pointer = driver.allocate(600)
        assert driver.memory() == (400, 1000)
        with pytest.raises(CudaError, match="OUT_OF_MEMORY; use a smaller --batch"):
            driver.allocate(401)
        driver.free(pointer)
        driver.allocate(1000)


def test_failures_that_are_asked_for(driver: HostDriver) -> None:
    stream, pointer = driver.create_stream(), driver.allocate(4)
    driver.fail_on("fill", nth=2)
    driver.fill(pointer, 0, 4, stream)
    with pytest.raises(CudaError) as raised:
        driver.fill(pointer, 0, 4, stream)
    assert raised.value.code == "CUDA_ERROR_LAUNCH_FAILED"
    driver.fill(pointer, 0, 4, stream)
    driver.fail_on("synchronize", code="CUDA_ERROR_ILLEGAL_ADDRESS", lasting=True)
    for _ in range(2):
        with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
            driver.synchronize(stream)
    with pytest.raises(CudaError, match="ILLEGAL_ADDRESS"):
        driver.free(pointer)
    driver.close()
    assert not any(driver.living.values())


def test_events(driver: HostDriver) -> None:
    stream = driver.create_stream()
    first, second = driver.create_event(timing=True), driver.create_event(timing=True)
    driver.record(first, stream)
    driver.record(second, stream)
    if driver._deferred:
        with pytest.raises(CudaError, match="NOT_READY"):
            driver.elapsed(first, second)
    driver.synchronize_event(second)
    assert 0 <= driver.elapsed(first, second) < 1


@pytest.mark.parametrize("integrated", [False, True])
def test_buffers(integrated: bool) -> None:
    """The growing buffers of mal_trt.cuda, also where GPU and processor share their memory."""
    driver = HostDriver(integrated=integrated)
    with driver.current():
        stream = driver.create_stream()
        buffer, staging = DeviceBuffer(driver), Staging(driver)
        pointer = buffer.reserve(100)
        assert buffer.reserve(50) == pointer and buffer.size == 100
        memory = staging.reserve(64)
        memory[:] = 7
        staging.upload(64, stream)
        assert driver.host.array(staging.pointer, np.uint8, 64).tolist() == [7] * 64
        driver.fill(staging.pointer, 9, 64, stream)
        staging.download(32, stream)
        assert memory[:32].tolist() == [9] * 32 and memory[33] == (9 if integrated else 7)
        assert driver.living["memory"] == (1 if integrated else 2)
        staging.reserve(65)
        buffer.close()
        staging.close()
        assert not driver.living["memory"] and not driver.living["pinned"]
