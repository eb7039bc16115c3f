"""ONNX Runtime's CUDA backend over a test double of the provider: what is bound, queued and waited for."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from host_cuda import HostDriver
from host_onnxruntime import HostSession, play_cuda
from lane import Lane, crops
from mal_trt.backends import Backend, DeviceBackend, open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.cuda import open as cuda_open
from mal_trt.cuda.driver import CudaError
from mal_trt.geometry.boxes import SizeClass
from small_graphs import contract, write_model
from tiny_model import write_tiny_model

LARGE = SizeClass.LARGE


@pytest.fixture(params=["eager", "deferred"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HostDriver:
    driver = HostDriver(mode=request.param)
    monkeypatch.setattr(cuda_open, "open_driver", lambda index=0: driver)
    return driver


def opened(path: Path, device: str = "cuda") -> tuple[DeviceBackend, Backend]:
    """On the double, and on the CPU."""
    backend = open_backend(path, device=device)
    assert isinstance(backend, DeviceBackend)
    return backend, open_backend(path, device="cpu", threads=1)


@pytest.mark.parametrize("model", [{}, {"dtype": "float32"}, {"head": "small"}, {"weights": "mixed"}])
def test_as_on_the_cpu(
    model: dict[str, str], tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = play_cuda(driver, monkeypatch)
    backend, cpu = opened(write_tiny_model(tmp_path / "tiny.onnx", grid_gain=0.25, **model))
    assert backend.provider == "CUDAExecutionProvider"
    assert sessions[0].options["use_tf32"] == "0"
    # The default doubles its memory each time, at the cost of crops, masks and other programs.
    assert sessions[0].options["arena_extend_strategy"] == "kSameAsRequested"
    for size in SizeClass:
        lane = Lane(backend, size)
        assert (backend.least(size), backend.most(size), lane.side) == (1, 1024, 16)
        for count in (1, 3, 8):
            image = crops(count, count, model.get("dtype", "uint8"))
            for weights in (None, "teacher") if "weights" in model else (None,):
                expected = cpu.run(image, size, weights)
                lane.queue(image, weights)
                np.testing.assert_array_equal(lane.result(count), expected)
                np.testing.assert_array_equal(backend.run(image, size, weights), expected)
        lane.close()
    backend.close()
    assert set(driver.living.values()) == {0}


def test_half_precision_keeps_its_tensor_cores(
    tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = play_cuda(driver, monkeypatch)
    half = write_model(tmp_path / "half.onnx", contract(precision="fp16"))
    open_backend(half, device="cuda").close()
    assert sessions[0].options["use_tf32"] == "1"


def test_lanes_take_turns(tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(driver, monkeypatch)
    backend, cpu = opened(write_tiny_model(tmp_path / "tiny.onnx"))
    lanes = [Lane(backend), Lane(backend)]
    for turn in range(4):
        images = [crops(4, 2 * turn + k) for k in range(2)]
        for lane, image in zip(lanes, images, strict=True):
            lane.queue(image)
        for lane, image in reversed(list(zip(lanes, images, strict=True))):
            np.testing.assert_array_equal(lane.result(4), cpu.run(image, LARGE))


def test_threads(tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(driver, monkeypatch)
    backend, cpu = opened(write_tiny_model(tmp_path / "tiny.onnx"))
    wrong: list[int] = []

    def work(number: int) -> None:
        lane = Lane(backend, SizeClass(number % 3))
        for turn in range(10):
            image = crops(1 + turn % 4, 100 * number + turn)
            lane.queue(image)
            if not np.array_equal(lane.result(len(image)), cpu.run(image, lane.size)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_failing_run(tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(driver, monkeypatch)
    backend, _ = opened(write_tiny_model(tmp_path / "tiny.onnx"))
    lane = Lane(backend)
    monkeypatch.setattr(HostSession, "failing", True)
    with pytest.raises(
        RunError, match=r"tiny\.onnx: ONNX Runtime failed on a batch of 2: CUDA failure 2: out of mem"
    ) as error:
        lane.queue(crops(2))
    assert str(error.value).endswith("out of memory; use a smaller --batch, or close other programs that use the GPU")
    monkeypatch.setattr(HostSession, "failing", False)
    lane.queue(crops(2))
    lane.result(2)
    with pytest.raises(InputError, match="batch of 1025"):
        backend.enqueue(lane.image.pointer, lane.logits.pointer, 1025, LARGE, lane.stream)
    lane.close()
    backend.close()
    backend.close()


def test_never_the_cpu_in_silence(tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    play_cuda(driver, monkeypatch)
    monkeypatch.setattr(HostSession, "falls_back", True)
    path = write_tiny_model(tmp_path / "tiny.onnx")
    with pytest.raises(InputError, match="device cuda: ONNX Runtime fell back to CPUExecutionProvider"):
        open_backend(path, device="cuda")
    assert set(driver.living.values()) == {0}
    monkeypatch.setattr(cuda_open, "open_driver", lambda index=0: HostDriver())
    backend = open_backend(path, device="auto")
    assert backend.provider == "CPUExecutionProvider" and not isinstance(backend, DeviceBackend)


def test_without_a_package_that_talks_to_cuda(
    tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime does not need one: batches then go up and down with every run."""

    def none(index: int = 0) -> HostDriver:
        raise InputError("no package that talks to CUDA is installed")

    play_cuda(driver, monkeypatch)
    monkeypatch.setattr(cuda_open, "open_driver", none)
    backend = open_backend(write_tiny_model(tmp_path / "tiny.onnx"), device="cuda")
    assert backend.provider == "CUDAExecutionProvider" and not isinstance(backend, DeviceBackend)
    assert backend.run(crops(2), LARGE).shape == (2, 1, 16, 16)


def test_no_memory_for_the_model(tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that other programs fill is no fault of the file."""
    play_cuda(driver, monkeypatch)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")

    monkeypatch.setattr("onnxruntime.InferenceSession", full)
    with pytest.raises(
        RunError, match=r"cannot load it \(Failed to allocate .*\); use a smaller --batch, or close other"
    ):
        open_backend(write_tiny_model(tmp_path / "tiny.onnx"), device="cuda")
    assert not any(driver.living.values())


@pytest.mark.parametrize("method", ["allocate", "create_event", "create_stream"])
def test_a_failing_start_leaves_nothing(
    method: str, tmp_path: Path, driver: HostDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    play_cuda(driver, monkeypatch)
    driver.fail_on(method, code="CUDA_ERROR_OUT_OF_MEMORY")
    living: dict[str, int] = {}
    closed = driver.close
    driver.close = lambda: living.update(driver.living) or closed()  # type: ignore[func-returns-value]
    with pytest.raises(CudaError):
        open_backend(write_tiny_model(tmp_path / "tiny.onnx"), device="cuda")
    assert living == dict.fromkeys(living, 0) != {}
