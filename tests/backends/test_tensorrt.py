"""The backend of engines, run for real over two test doubles: host memory for CUDA, ONNX Runtime for TensorRT."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import host_tensorrt
from host_tensorrt import write_engine
from lane import Lane, crops
from mal_trt.artifacts.manifest import Profile
from mal_trt.backends import DeviceBackend, open_backend
from mal_trt.base.errors import InputError, RunError
from mal_trt.geometry.boxes import SizeClass
from opened_engine import Opened
from tiny_model import write_tiny_model

LARGE = SizeClass.LARGE


@pytest.mark.parametrize("mode", ["eager", "deferred"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_batch_and_size_is_as_on_the_cpu(opened: Opened, mode: str, dtype: str) -> None:
    backend = opened({"dtype": dtype}, mode=mode)
    assert isinstance(backend, DeviceBackend)
    assert backend.provider == "TensorRT 10.3.0 (host memory (test double))" and backend.outputs == ("logits",)
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for size in SizeClass:
        assert (backend.least(size), backend.most(size), backend.logits_side(size)) == (1, 4, 16)
        for count in (1, 2, 3, 4, 3, 9):
            image = crops(count, count, dtype)
            np.testing.assert_array_equal(backend.run(image, size), cpu.run(image, size))
    assert backend.run(crops(0, dtype=dtype), LARGE).shape == (0, 1, 16, 16)


def test_a_baked_head_has_one_profile(opened: Opened) -> None:
    backend = opened({"head": "medium"})
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for size in SizeClass:
        np.testing.assert_array_equal(backend.run(crops(5), size), cpu.run(crops(5), size))
    assert len(opened.faults.contexts) == 1


def test_each_size_has_a_context_of_its_profile(opened: Opened) -> None:
    """Also when an engine lists its profiles in another order than the sizes'."""
    profiles = [Profile((1, 2, 2), 8), Profile((1, 2, 3), 2), Profile((1, 2, 4), 4)]
    backend = opened(engine={"profiles": profiles})
    assert [backend.most(size) for size in SizeClass] == [3, 4, 2]
    assert [context.profile for context in opened.faults.contexts] == [1, 2, 0]
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for size in SizeClass:
        np.testing.assert_array_equal(backend.run(crops(4), size), cpu.run(crops(4), size))


@pytest.mark.parametrize("head", ["dynamic", "fixed"])
def test_crops_of_a_side_for_each_size(opened: Opened, head: str) -> None:
    sides = (32, 64, 64)
    backend = opened({"sizes": sides, "head": head})
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for size, side in zip(SizeClass, sides, strict=True):
        image = np.random.default_rng(side).integers(0, 256, (5, 3, side, side), np.uint8)
        np.testing.assert_array_equal(backend.run(image, size), cpu.run(image, size))
        assert backend.logits_side(size) == side // 4
    assert len(opened.faults.contexts) == (3 if head == "dynamic" else 2)
    with pytest.raises(InputError, match=r"takes \[N, 3, 32, 32\] for small boxes"):
        backend.run(crops(1), SizeClass.SMALL)


def test_one_profile_for_several_grids(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as build-engine makes them, but each size still gets its own grid."""
    shapes = host_tensorrt._Engine.get_tensor_profile_shape

    def wide(engine: Any, name: str, index: int) -> list[tuple[int, ...]]:
        return [(1, 1, n, n) for n in (2, 4, 8)] if name == "head_grid" else shapes(engine, name, index)

    monkeypatch.setattr(host_tensorrt._Engine, "get_tensor_profile_shape", wide)
    backend = opened(engine={"profiles": [Profile((1, 2, 4), 8)]})
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for size in SizeClass:
        np.testing.assert_array_equal(backend.run(crops(4), size), cpu.run(crops(4), size))


def test_small_batches_are_padded(opened: Opened) -> None:
    backend = opened(engine={"batch": (3, 3, 4)}, graphs=False)
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for count, ran in ((1, 3), (2, 3), (3, 3), (4, 4), (5, 3)):
        np.testing.assert_array_equal(backend.run(crops(count), LARGE), cpu.run(crops(count), LARGE))
        assert opened.faults.contexts[-1].ran["image"][0] == ran
    assert backend.least(LARGE) == 3
    lane = Lane(backend)
    lane.queue(crops(1))
    np.testing.assert_array_equal(lane.result(1), cpu.run(crops(1), LARGE))
    with pytest.raises(InputError, match=r"a batch of 5: .*tiny\.engine takes 4 at most"):
        backend.enqueue(lane.image.pointer, lane.logits.pointer, 5, LARGE, lane.stream)


@pytest.mark.parametrize("graphs", [True, False])
def test_two_lanes_take_turns(opened: Opened, graphs: bool) -> None:
    """Both queue before either is waited for, the later first; the double runs everything as late as it may."""
    backend = opened(mode="deferred", graphs=graphs)
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    lanes = [Lane(backend), Lane(backend)]
    counts = [(1, 1)] * 4 + [(1, 2), (2, 1), (4, 3)] + [(3, 3)] * 4 + [(2, 3)]
    for turn, both in enumerate(counts):
        images = [crops(count, 10 * turn + k) for k, count in enumerate(both)]
        for lane, image in zip(lanes, images, strict=True):
            lane.queue(image)
        for lane, image in reversed(list(zip(lanes, images, strict=True))):
            np.testing.assert_array_equal(lane.result(len(image)), cpu.run(image, LARGE))
    assert bool(opened.driver.calls["launch_graph"]) == graphs


def test_graphs(opened: Opened) -> None:
    """A batch is captured when it comes the second time, and launched from the third on."""
    backend = opened()
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    lane = Lane(backend)
    seen = []
    for turn in range(6):
        image = crops(2, turn)
        lane.queue(image)
        np.testing.assert_array_equal(lane.result(2), cpu.run(image, LARGE))
        seen.append((opened.faults.executes, opened.driver.calls["launch_graph"]))
    assert seen == [(1, 0), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)]
    for size in SizeClass:
        for count in (1, 3):
            for turn in range(3):
                np.testing.assert_array_equal(backend.run(crops(count, turn), size), cpu.run(crops(count, turn), size))
    assert opened.driver.living["graph"] == 3 and backend.notes == []  # one for each size, of the batch of 3


def test_graphs_are_of_one_shape_and_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context that was given other shapes may not launch what was captured before."""
    monkeypatch.setattr("mal_trt.backends.tensorrt_context.MOST_GRAPHS", 2)
    backend = opened(mode="deferred")
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    lanes = [Lane(backend) for _ in range(3)]
    launched = []
    for turn, count in enumerate((2, 2, 2, 3, 2, 2, 2)):
        for number, lane in enumerate(lanes[: 2 if turn < 3 else 3]):
            image = crops(count, 10 * turn + number)
            lane.queue(image)
            np.testing.assert_array_equal(lane.result(count), cpu.run(image, LARGE))
            assert opened.driver.living["graph"] <= 2
        launched.append(opened.driver.calls["launch_graph"])
    assert launched == [0, 0, 2, 2, 2, 2, 2]  # three lanes are too many for two graphs
    assert 2 <= opened.driver.calls["destroy_graph"] <= opened.driver.calls["synchronize_event"]  # none that still runs


@pytest.mark.parametrize("why", ["begin_capture", "end_capture", "TensorRT"])
def test_without_graphs_where_they_fail(opened: Opened, why: str) -> None:
    backend = opened()
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    if why == "TensorRT":
        opened.faults.capturable = False
    else:
        opened.driver.fail_on(why, code="CUDA_ERROR_NOT_SUPPORTED")
    for turn in range(4):
        image = crops(2, turn)
        np.testing.assert_array_equal(backend.run(image, LARGE), cpu.run(image, LARGE))
    (note,) = backend.notes
    assert note.startswith("CUDA graphs are not used: ") and "\n" not in note
    assert opened.driver.calls["launch_graph"] == opened.driver.living["graph"] == 0


def test_graphs_turned_off(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAL_TRT_GRAPHS", "0")
    backend = opened()
    for _ in range(4):
        backend.run(crops(2), LARGE)
    assert opened.driver.calls["begin_capture"] == 0


def test_mixed_weights(opened: Opened) -> None:
    """Every output has an address of its own: one may be computed of the others."""
    backend = opened({"weights": "mixed"})
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    assert backend.outputs == ("logits", "logits_student", "logits_teacher")
    lane = Lane(backend)
    for turn in range(3):
        for weights in (None, "mixed", "student", "teacher"):
            image = crops(3, turn)
            expected = cpu.run(image, LARGE, weights)
            np.testing.assert_array_equal(backend.run(image, LARGE, weights), expected)
            lane.queue(image, weights)
            np.testing.assert_array_equal(lane.result(3), expected)
    addresses = opened.faults.contexts[-1].addresses
    assert len(set(addresses.values())) == len(addresses) == 5
    with pytest.raises(InputError, match="--weights mixed"):
        opened().run(crops(1), LARGE, "teacher")


def test_threads(opened: Opened) -> None:
    backend = opened(mode="deferred")
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    wrong: list[str] = []

    def work(number: int) -> None:
        lane = Lane(backend, SizeClass(number % 3))
        for turn in range(12):
            image = crops(1 + turn % 4, 100 * number + turn)
            lane.queue(image)
            expected = cpu.run(image, lane.size)
            for found in (lane.result(len(image)), backend.run(image, lane.size)):
                if not np.array_equal(found, expected):
                    wrong.append(f"thread {number}, turn {turn}")
        lane.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    backend.close()
    assert set(opened.driver.living.values()) == {0}


def test_shared_memory_of_a_jetson(opened: Opened) -> None:
    backend = opened(integrated=True, mode="deferred")
    cpu = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1)
    for _ in range(3):
        np.testing.assert_array_equal(backend.run(crops(3), LARGE), cpu.run(crops(3), LARGE))
    assert opened.driver.calls["copy_to_device"] == opened.driver.calls["copy_to_host"] == 0


def test_room_is_made_once(opened: Opened) -> None:
    backend = opened(graphs=False)
    backend.run(crops(1), LARGE)
    made = opened.driver.calls["allocate"], opened.driver.calls["allocate_pinned"]
    for count in (4, 2, 9):
        backend.run(crops(count), LARGE)
    assert (opened.driver.calls["allocate"], opened.driver.calls["allocate_pinned"]) == made


def test_closing_frees_everything(opened: Opened) -> None:
    backend = opened({"weights": "mixed"}, mode="deferred")
    lane = Lane(backend)
    for turn in range(3):
        backend.run(crops(2), LARGE)
        lane.queue(crops(4, turn))  # still running when the backend is closed
    living, closed = {}, opened.driver.close
    expected = open_backend(opened.folder / "tiny.onnx", device="cpu", threads=1).run(crops(4, 2), LARGE)

    def close() -> None:
        living.update(opened.driver.living)
        done = opened.driver.host.array(lane.logits.pointer, np.float32, expected.shape)
        np.testing.assert_array_equal(done, expected)  # what was queued was waited for
        closed()

    opened.driver.close = close  # type: ignore[method-assign]
    backend.close()
    assert living == {"memory": 2, "pinned": 0, "stream": 1, "event": 0, "module": 0, "graph": 0}  # the lane's own
    backend.close()
    for use in (lambda: backend.run(crops(1), LARGE), lambda: backend.most(LARGE), backend.layers):
        with pytest.raises(RunError, match=r"tiny\.engine: this backend is closed"):
            use()


def test_which_file_and_device(opened: Opened, tmp_path: Path) -> None:
    opened().close()
    engine = tmp_path / "tiny.engine"
    opened.use()
    backend = open_backend(engine, device="cuda")
    assert backend.provider.startswith("TensorRT")
    backend.close()
    with pytest.raises(InputError, match=r"tiny\.engine: an engine runs on a GPU alone"):
        open_backend(engine, device="cpu")


def test_no_gpu_here(tmp_path: Path) -> None:
    """Before the library is so much as imported: it would crash."""
    from mal_trt.base.gpu import find_gpus

    if find_gpus().gpu is not None:
        pytest.skip("there is a GPU")
    engine = write_engine(write_tiny_model(tmp_path / "tiny.onnx"), tmp_path / "tiny.engine")
    with pytest.raises(InputError, match=r"GPU|driver|talks to CUDA"):
        open_backend(engine)
