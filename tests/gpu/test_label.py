"""The whole way on a real GPU, with an engine of the bundled model: labels, threads, memory, errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module, resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from mal_trt import label
from mal_trt.artifacts.flavor import MODULES
from mal_trt.backends import open_backend
from mal_trt.backends.tensorrt import TensorRTBackend
from mal_trt.base.errors import RunError
from mal_trt.cuda.buffers import DeviceBuffer
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.labelling.masker import Places
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.predictor import Predictor

pytestmark = pytest.mark.gpu

EXAMPLES = Path(str(resources.files("mal_trt.examples")))
LEAK_BATCHES = 10_000
EXPECTED = 7  # exit code of a run that ended as it should


def flavors() -> list[str]:
    found = []
    for name, module in MODULES.items():
        try:
            import_module(module)
        except ImportError:
            continue
        found.append(name)
    return found


@pytest.fixture(scope="module", params=flavors() or [None])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP16 engine of the bundled model by each flavour that is installed."""
    if request.param is None:
        pytest.skip("neither tensorrt nor tensorrt-rtx is installed")
    build = import_module("mal_trt.engines")
    path = tmp_path_factory.mktemp(request.param) / "bundled.engine"
    build.build_engine("bundled", path, build.EngineOptions(flavor=request.param, precision="fp16"))
    return path


def labels(path: Path, model: str | Path, **options: Any) -> list[dict[str, Any]]:
    label(EXAMPLES / "photos", EXAMPLES / "boxes.json", model, path, progress=False, **options)
    return list(json.loads(path.read_bytes())["annotations"])


def least_iou(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> float:
    pairs = zip(one, other, strict=True)
    return min(float(coco.iou([a["segmentation"]], [b["segmentation"]], [0])[0, 0]) for a, b in pairs)


@pytest.mark.parametrize("flip", [False, True])
def test_labels_are_those_of_the_cpu(tmp_path: Path, engine: Path, flip: bool) -> None:
    expected = labels(tmp_path / "cpu.json", "bundled", device="cpu", flip=flip)
    on_gpu = labels(tmp_path / "gpu.json", engine, flip=flip)
    assert least_iou(on_gpu, expected) >= 0.99  # FP16
    mean = np.mean([least_iou([a], [b]) for a, b in zip(on_gpu, expected, strict=True)])
    assert mean >= 0.999


def test_masks_made_on_the_gpu_are_those_made_on_the_cpu(tmp_path: Path, engine: Path) -> None:
    """Of the same engine's logits: bit for bit."""
    on_gpu = labels(tmp_path / "gpu.json", engine, crops="gpu", batch=8)
    on_cpu = labels(tmp_path / "cpu.json", engine, crops="cpu", batch=8)
    assert on_gpu == on_cpu


def test_pictures_decoded_on_the_gpu(tmp_path: Path, engine: Path) -> None:
    pytest.importorskip("nvidia.nvimgcodec")
    assert least_iou(labels(tmp_path / "a.json", engine, decode="gpu"), labels(tmp_path / "b.json", engine)) >= 0.95


def test_onnx_runtime_on_the_gpu(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    expected = labels(tmp_path / "expected.json", "bundled", device="cpu")
    for crops in ("cpu", "gpu"):
        found = labels(tmp_path / f"{crops}.json", "bundled", device="cuda", crops=crops)
        assert np.mean([least_iou([a], [b]) for a, b in zip(found, expected, strict=True)]) >= 0.999


def batch_of(predictor: Predictor, seed: int) -> Callable[[Any], list[Any]]:
    """Labels one made-up batch with a masker."""
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(40, 400, 2))
    picture = rng.integers(0, 255, (height, width, 3), np.uint8)
    count, size = 1 + seed % 4, SizeClass(seed % 3)
    x0, y0 = rng.uniform(0, width / 3), rng.uniform(0, height / 3)
    frame = predictor.frame((x0, y0, x0 + width / 2, y0 + height / 2), width, height)

    def run(masker: Any) -> list[Any]:
        batch = masker.batch(Frames.of([frame] * count), size)
        masker.cut([picture], Places.filling(batch))
        return list(masker.masks(batch))

    return run


def test_two_threads_get_what_one_gets(engine: Path) -> None:
    predictor = Predictor(engine, threshold=0.5)
    masker = open_masker(predictor)
    batches = [batch_of(predictor, seed) for seed in range(200)]
    alone = [run(masker) for run in batches]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda run: run(masker), batches)) == alone
    masker.close()
    predictor.close()


def test_memory_does_not_leak(engine: Path) -> None:
    predictor = Predictor(engine)
    masker = open_masker(predictor)
    driver: Driver = predictor.backend.driver  # type: ignore[attr-defined]
    batches = [batch_of(predictor, seed) for seed in range(48)]
    free = 0
    for turn in range(LEAK_BATCHES):
        batches[turn % len(batches)](masker)
        if turn == LEAK_BATCHES // 10:
            with driver.current():
                free = driver.memory()[0]
    with driver.current():
        assert free - driver.memory()[0] < 64 << 20
    masker.close()
    predictor.close()
    assert not any(driver.living.values()), driver.living  # type: ignore[attr-defined]


def test_out_of_memory_is_one_line_and_nothing_else_suffers(engine: Path) -> None:
    predictor = Predictor(engine)
    masker = open_masker(predictor)
    driver: Driver = predictor.backend.driver  # type: ignore[attr-defined]
    run = batch_of(predictor, 1)
    before = run(masker)
    with driver.current(), pytest.raises(CudaError, match="OUT_OF_MEMORY") as caught:
        DeviceBuffer(driver).reserve(driver.memory()[1] * 2)
    assert "\n" not in str(caught.value)
    assert run(masker) == before
    masker.close()
    predictor.close()


def test_a_failure_in_mid_run_keeps_the_journal(tmp_path: Path, engine: Path) -> None:
    """In a process of its own: what comes after it in the same one would fail too."""
    out = tmp_path / "out.json"
    process = get_context("spawn").Process(target=_run_astray, args=(engine, out))
    process.start()
    process.join()
    assert process.exitcode == EXPECTED
    assert not out.exists() and out.with_name("out.json.journal").exists()
    resumed = label(EXAMPLES / "photos", EXAMPLES / "boxes.json", engine, out, batch=2, resume=True, progress=False)
    assert resumed.resumed >= 2 and resumed.labelled == resumed.total


def _run_astray(engine: Path, out: Path) -> None:
    """The fourth batch gets a pointer that leads nowhere: the GPU's context is lost, as after a reset."""
    turns, enqueue = 0, TensorRTBackend.enqueue

    def astray(self: TensorRTBackend, image: int, *rest: Any) -> None:
        nonlocal turns
        turns += 1
        enqueue(self, 256 if turns == 4 else image, *rest)

    TensorRTBackend.enqueue = astray  # type: ignore[method-assign]
    try:
        label(EXAMPLES / "photos", EXAMPLES / "boxes.json", engine, out, batch=2, progress=False)
    except RunError as error:
        os._exit(EXPECTED if "CUDA" in str(error) and "\n" not in str(error) else 8)


def test_engine_and_onnx_agree(engine: Path) -> None:
    on_gpu, on_cpu = open_backend(engine), open_backend("bundled", "cpu")
    side = on_cpu.contract.input_size
    image = np.random.default_rng(0).integers(0, 255, (5, 3, side, side), np.uint8)
    for size in SizeClass:
        one, other = on_gpu.run(image, size), on_cpu.run(image, size)
        assert np.abs(one - other).max() <= 0.02 * (other.max() - other.min())
    on_gpu.close()
    on_cpu.close()
