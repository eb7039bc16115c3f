"""Labelling on the GPU, run for real over test doubles: host memory for CUDA with mal-trt's own kernels compiled for
the processor, and ONNX Runtime for TensorRT. The labels must be those of the CPU path to the byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if shutil.which("g++") is None:
    pytest.skip("needs g++ to run the kernels on the processor", allow_module_level=True)

from compiled_kernels import compiled
from host_cuda import HostDriver
from host_tensorrt import Faults, host_flavor, write_engine
from mal_trt import Labeler, label
from mal_trt.backends import tensorrt
from mal_trt.base.errors import InputError, NanLogits, RunError
from mal_trt.cli import app
from mal_trt.cuda import open as cuda_open
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.labelling.cpu_masker import CpuMasker
from mal_trt.labelling.gpu_masker import GpuMasker
from mal_trt.labelling.masker import Places
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.predictor import Predictor
from tiny_model import write_tiny_model

Write = Callable[..., Any]
QUIET = {"progress": False, "threads": 4}


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., None]]:
    return compiled(tmp_path_factory.mktemp("kernels"))


class Gpu:
    """Makes a GPU out of doubles; `driver` and `faults` are those of the last one."""

    def __init__(self, kernels: dict[str, Callable[..., None]], patch: pytest.MonkeyPatch) -> None:
        self._kernels, self._patch = kernels, patch
        self.driver, self.faults = HostDriver(), Faults()

    def use(self, **machine: Any) -> HostDriver:
        self.driver, self.faults = HostDriver(kernels=self._kernels, **machine), Faults()
        flavor = host_flavor(self.driver, "tensorrt", self.faults)
        self._patch.setattr(cuda_open, "open_driver", lambda index=0: self.driver)
        self._patch.setattr(tensorrt, "open_flavor", lambda name: flavor)
        return self.driver


@pytest.fixture
def gpu(kernels: dict[str, Callable[..., None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gpu:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gpu = Gpu(kernels, monkeypatch)
    gpu.use()
    return gpu


def nothing_lives(driver: HostDriver) -> bool:
    return not any(driver.living.values())


@pytest.mark.parametrize(
    ("machine", "options"),
    [
        ({}, {}),
        ({"mode": "deferred"}, {}),
        ({"mode": "deferred", "integrated": True}, {}),
        ({"mode": "deferred"}, {"flip": True, "refine": "color", "threshold": (0.3, 0.4, 0.6)}),
        ({"mode": "deferred"}, {"refine": "color", "weights": "teacher", "batch": 3}),
        ({"mode": "deferred"}, {"refine": "color", "slack": 0.15}),
        ({"mode": "deferred"}, {"second_pass": True}),
    ],
)
def test_the_labels_are_those_of_the_cpu(
    tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write, machine: dict[str, Any], options: dict[str, Any]
) -> None:
    """The model's masks tell with whom a box shared its batch, so the batches must be the same too."""
    images, boxes = data_set(pictures=9, size=(200, 120))
    onnx = tiny_model(coupled=True, weights="mixed" if "weights" in options else "student")
    engine = write_engine(onnx, tmp_path / "tiny.engine")
    driver = gpu.use(**machine)
    options = {"batch": 4, **QUIET, **options}
    cpu, device = tmp_path / "cpu.json", tmp_path / "gpu.json"
    expected = label(images, boxes, onnx, cpu, device="cpu", **options)
    summary = label(images, boxes, engine, device, **options)
    assert (summary.labelled, summary.skipped) == (expected.labelled, expected.skipped)
    assert device.read_bytes() == cpu.read_bytes()
    assert summary.provider == "TensorRT 10.3.0 (host memory (test double))"
    assert driver.calls["launch"] and nothing_lives(driver)


@pytest.mark.parametrize("head", ["dynamic", "fixed"])
def test_crops_of_a_side_for_each_size_are_those_of_the_cpu(
    tmp_path: Path, gpu: Gpu, data_set: Write, head: str
) -> None:
    boxes = [[10, 10, 30, 30], [60, 20, 50, 50], [5, 30, 190, 140], [50, 50, 30, 25]]
    records = [{"id": i, "image_id": 1 + i % 3, "category_id": 3, "bbox": boxes[i % 4]} for i in range(24)]
    images, document = data_set(pictures=3, size=(200, 180), records=records)
    onnx = write_tiny_model(tmp_path / "sized.onnx", sizes=(32, 64, 96), head=head, coupled=True)
    engine = write_engine(onnx, tmp_path / "sized.engine")
    driver = gpu.use(mode="deferred")
    options = {"batch": 4, "flip": True, "refine": "color", **QUIET}
    cpu, device = tmp_path / "cpu.json", tmp_path / "gpu.json"
    assert label(images, document, onnx, cpu, device="cpu", **options).labelled == 24
    assert label(images, document, engine, device, **options).labelled == 24
    assert device.read_bytes() == cpu.read_bytes() and nothing_lives(driver)


def test_a_picture_that_cannot_be_read_leaves_a_hole(
    tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write
) -> None:
    images, boxes = data_set(pictures=5)
    (images / "000000000001.png").write_bytes(b"not a picture")
    (images / "000000000004.png").unlink()
    onnx = tiny_model()
    engine = write_engine(onnx, tmp_path / "tiny.engine", batch=(3, 4, 4))
    cpu, device = tmp_path / "cpu.json", tmp_path / "gpu.json"
    expected = label(images, boxes, onnx, cpu, device="cpu", batch=4, **QUIET)
    assert label(images, boxes, engine, device, **QUIET).skipped == expected.skipped != {}
    assert device.read_bytes() == cpu.read_bytes() and nothing_lives(gpu.driver)


def test_pictures_decoded_on_the_gpu_stay_there(
    tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test double of the decoder leaves every second picture on the GPU, as nvImageCodec does."""
    images, boxes = data_set(pictures=6)
    onnx = tiny_model()
    engine = write_engine(onnx, tmp_path / "tiny.engine")

    class OnGpu:
        def __init__(self, pixels: np.ndarray) -> None:
            self.shape, self.dtype = pixels.shape, pixels.dtype
            memory, pointer = gpu.driver.allocate_pinned(pixels.nbytes)
            memory[:] = pixels.ravel()
            self.__cuda_array_interface__ = {"data": (pointer, False)}
            self._memory = memory

    class Decoder:
        taken = 0

        def __init__(self, driver: HostDriver) -> None:
            pass

        def load(self, source: Any, file_name: str, expected: tuple[int, int]) -> Any:
            Decoder.taken += 1
            pixels = source.load(file_name, expected)
            return OnGpu(pixels) if Decoder.taken % 2 else pixels

        def close(self) -> None:
            pass

    monkeypatch.setattr("mal_trt.labelling.gpu_masker.JpegDecoder", Decoder)
    cpu, device = tmp_path / "cpu.json", tmp_path / "gpu.json"
    label(images, boxes, onnx, cpu, device="cpu", batch=4, **QUIET)
    label(images, boxes, engine, device, decode="gpu", **QUIET)
    assert device.read_bytes() == cpu.read_bytes() and Decoder.taken == 6


def test_crops_on_the_cpu_give_the_same(tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    onnx = tiny_model()
    engine = write_engine(onnx, tmp_path / "tiny.engine")
    cpu, device = tmp_path / "cpu.json", tmp_path / "gpu.json"
    label(images, boxes, onnx, cpu, device="cpu", batch=4, **QUIET)
    label(images, boxes, engine, device, crops="cpu", batch=4, **QUIET)
    assert device.read_bytes() == cpu.read_bytes()
    assert not gpu.driver.calls["launch"] and nothing_lives(gpu.driver)


def test_the_python_api_on_the_gpu(tmp_path: Path, gpu: Gpu, tiny_model: Write) -> None:
    onnx = tiny_model()
    engine = write_engine(onnx, tmp_path / "tiny.engine")
    picture = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    boxes = [[5, 8, 60.5, 70], [-20, -5, 20, 30], [200, 0, 300, 50], [3, 3, 129, 89], [10, 10, 11.5, 80]]
    with Labeler(onnx, "cpu") as cpu, Labeler(engine) as device:
        ours, theirs = device(picture, boxes), cpu(picture, boxes)
        assert np.array_equal(ours.masks, theirs.masks) and ours.rle == theirs.rle
        assert theirs.areas.sum() > 1000
    assert nothing_lives(gpu.driver)


def test_which_masker(tmp_path: Path, gpu: Gpu, tiny_model: Write) -> None:
    onnx = tiny_model()
    on_cpu = Predictor(onnx, "cpu")
    on_gpu = Predictor(write_engine(onnx, tmp_path / "tiny.engine"))
    tight = Predictor(tmp_path / "tiny.engine", threshold="tight")
    assert isinstance(open_masker(on_cpu), CpuMasker) and isinstance(open_masker(on_gpu, "cpu"), CpuMasker)
    assert isinstance(open_masker(on_gpu), GpuMasker) and isinstance(open_masker(on_gpu, "gpu"), GpuMasker)
    assert isinstance(open_masker(tight), CpuMasker)
    for predictor, options, words in (
        (on_cpu, {"crops": "gpu"}, "crops gpu: the model runs on CPUExecutionProvider.*--crops cpu"),
        (on_cpu, {"decode": "gpu"}, "decode gpu: the model runs on CPUExecutionProvider.*--decode cpu"),
        (tight, {"crops": "gpu"}, "crops gpu: masks of --threshold tight are made on the CPU"),
        (on_gpu, {"decode": "scaled"}, "decode scaled: the GPU cuts crops from whole pictures.*--crops cpu"),
        (on_gpu, {"crops": "cpu", "decode": "gpu"}, "decode gpu: its pictures stay on the GPU"),
        (on_gpu, {"crops": "npu"}, "crops npu: expected one of auto, cpu, gpu"),
    ):
        with pytest.raises(InputError, match=words):
            open_masker(predictor, **options)
    assert (on_cpu.most, on_gpu.most) == (None, 4)


def test_a_batch_the_engine_cannot_take(tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set()
    engine = write_engine(tiny_model(), tmp_path / "tiny.engine")
    with pytest.raises(InputError, match="batch 5: the engine takes up to 4"):
        label(images, boxes, engine, tmp_path / "out.json", batch=5, **QUIET)
    assert nothing_lives(gpu.driver) and not (tmp_path / "out.json.journal").exists()


@pytest.mark.parametrize(
    ("method", "nth", "code", "lasting", "words"),
    [
        ("allocate", 14, "CUDA_ERROR_OUT_OF_MEMORY", False, "CUDA_ERROR_OUT_OF_MEMORY.*batch"),
        ("allocate_pinned", 6, "CUDA_ERROR_OUT_OF_MEMORY", False, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("launch", 40, "CUDA_ERROR_LAUNCH_FAILED", False, "CUDA_ERROR_LAUNCH_FAILED"),
        # From then on every call fails: what an illegal address or a reset of the device looks like.
        ("launch", 40, "CUDA_ERROR_ILLEGAL_ADDRESS", True, "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("synchronize", 12, "CUDA_ERROR_DEVICE_UNAVAILABLE", True, "CUDA_ERROR_DEVICE_UNAVAILABLE"),
    ],
)
def test_a_gpu_that_fails_in_mid_run_loses_nothing(
    tmp_path: Path,
    gpu: Gpu,
    tiny_model: Write,
    data_set: Write,
    method: str,
    nth: int,
    code: str,
    lasting: bool,
    words: str,
) -> None:
    images, boxes = data_set(pictures=12, size=(200, 120))
    onnx = tiny_model()
    engine, out = write_engine(onnx, tmp_path / "tiny.engine"), tmp_path / "out.json"
    driver = gpu.use(mode="deferred")
    driver.fail_on(method, nth, code, lasting)
    with pytest.raises(RunError, match=words) as caught:
        label(images, boxes, engine, out, batch=4, **QUIET)
    assert "\n" not in str(caught.value)
    assert not out.exists() and out.with_name("out.json.journal").exists()
    if not lasting:
        assert nothing_lives(driver)
    gpu.use()
    assert label(images, boxes, engine, out, batch=4, resume=True, **QUIET).labelled == 180
    straight = tmp_path / "straight.json"
    label(images, boxes, onnx, straight, device="cpu", batch=4, **QUIET)
    assert out.read_bytes() == straight.read_bytes()


def test_an_engine_that_fails_in_mid_run(tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=6, size=(200, 120))
    engine, out = write_engine(tiny_model(), tmp_path / "tiny.engine"), tmp_path / "out.json"
    seen = 0

    original = tensorrt.ProfileContext.enqueue

    def enqueue(self: Any, *rest: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == 6:
            gpu.faults.failing = 1
        original(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt.ProfileContext, "enqueue", enqueue)
        with pytest.raises(RunError, match=r"tiny\.engine.* failed on a batch of"):
            label(images, boxes, engine, out, batch=4, **QUIET)
    assert nothing_lives(gpu.driver)
    gpu.use()
    assert label(images, boxes, engine, out, batch=4, resume=True, **QUIET).resumed >= 4


def test_what_the_engine_could_not_do_is_noted(tmp_path: Path, gpu: Gpu, tiny_model: Write, data_set: Write) -> None:
    images, boxes = data_set(pictures=40)
    engine = write_engine(tiny_model(), tmp_path / "tiny.engine")
    gpu.faults.capturable = False
    words = ["--images", images, "--boxes", boxes, "--model", engine, "--out", tmp_path / "labels.json"]
    done = CliRunner().invoke(app, ["label", *map(str, words)])
    assert done.exit_code == 0 and done.output.count("note: CUDA graphs are not used: ") == 1


@pytest.mark.parametrize("method", ["allocate", "allocate_pinned", "load_module", "launch", "copy_to_device"])
def test_after_a_failure_the_next_boxes_are_right(
    tmp_path: Path, gpu: Gpu, tiny_model: Write, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a server, which goes on: whatever call fails once, nothing is half made afterwards and nothing is lost."""
    monkeypatch.setenv("MAL_TRT_GRAPHS", "0")  # how many there are depends on the number of batches
    onnx = tiny_model()
    engine = write_engine(onnx, tmp_path / "tiny.engine")
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    boxes = [[8, 9, 80, 70], [20, 5, 45, 31], [60, 20, 119, 89]]
    with Labeler(onnx, "cpu", threads=1) as labeler:
        expected = [mask.tobytes() for mask in labeler(picture, boxes)]
    lived, failed = [], 0
    for nth in range(80):  # 0: nothing fails
        driver = gpu.use(mode="deferred")
        with Labeler(engine) as labeler:
            if nth:
                driver.fail_on(method, nth, "CUDA_ERROR_OUT_OF_MEMORY")
            try:
                labeler(picture, boxes)
                if nth:
                    break
            except RunError:
                failed += 1
            assert [mask.tobytes() for mask in labeler(picture, boxes)] == expected, nth
            lived.append(driver.living)
        assert nothing_lives(driver)
    assert failed > 1 and all(living == lived[0] for living in lived), lived


def test_nan_is_said(tmp_path: Path, gpu: Gpu, tiny_model: Write) -> None:
    predictor = Predictor(write_engine(tiny_model(), tmp_path / "tiny.engine"))
    masker = open_masker(predictor)
    picture = np.full((64, 64, 3), 128, np.uint8)
    frames = Frames.of([predictor.frame((10, 10, 30, 30), 64, 64)] * 2)
    batch = masker.batch(frames, SizeClass.SMALL)
    masker.cut([picture], Places.filling(batch))
    enqueue = predictor.backend.enqueue

    def poisoned(image: int, logits: int, *rest: Any) -> None:
        enqueue(image, logits, *rest)
        gpu.driver.host.array(logits + 4 * 300, np.float32, 1)[0] = np.nan

    predictor.backend.enqueue = poisoned  # type: ignore[attr-defined]
    with pytest.raises(NanLogits, match="NaN logits"):
        masker.masks(batch)
    batch = masker.batch(frames, SizeClass.SMALL)
    masker.cut([picture], Places.filling(batch))
    gpu.driver.fail_on("fill")  # after the NaN was found, before anybody asked for it
    with pytest.raises(RunError, match="CUDA"):
        masker.masks(batch)
    predictor.backend.enqueue = enqueue  # type: ignore[attr-defined]
    batch = masker.batch(frames, SizeClass.SMALL)
    batch.cut[0] = False
    masker.cut([picture], Places.filling(batch).part(batch.cut))
    first, second = masker.masks(batch)
    assert first is None and second is not None
    masker.close()
    predictor.close()
    assert nothing_lives(gpu.driver)


def test_memory_does_not_grow(tmp_path: Path, gpu: Gpu, tiny_model: Write) -> None:
    predictor = Predictor(write_engine(tiny_model(), tmp_path / "tiny.engine"))
    masker = open_masker(predictor)
    rng = np.random.default_rng(0)
    living = []
    for turn in range(300):
        width, height = rng.integers(20, 120, 2).tolist()
        picture = rng.integers(0, 255, (height, width, 3), np.uint8)
        size = SizeClass(turn % 3)
        frames = [predictor.frame((2, 3, width / 2, height / 1.5), width, height) for _ in range(1 + turn % 4)]
        batch = masker.batch(Frames.of(frames), size)
        masker.cut([picture], Places.filling(batch))
        assert all(masker.masks(batch))
        living.append(gpu.driver.living)
    # Only the pool of pictures and CUDA graphs still fill up after the first batches, to a bound.
    assert {k: v for k, v in living[-1].items() if k != "graph"} == {
        k: v for k, v in living[150].items() if k != "graph"
    }
    assert living[-1]["graph"] <= 96
    masker.close()
    predictor.close()
    assert nothing_lives(gpu.driver)
