"""The kernels on a real GPU against the processor's path, bit for bit, and how fast they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernel_cases import Rig, random_frame, random_logits, random_picture
from mal_trt.cuda.crop import Cropper, PicturePool
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.paste import Paster
from mal_trt.cuda.quality import QualityScorer
from mal_trt.cuda.refine import Refiner
from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.quality import soft_iou
from mal_trt.geometry.refine import refine_colour

pytestmark = pytest.mark.gpu

# (batches, boxes of each, crop side)
ROUNDS = ((36, 50, 96), (10, 20, 512))


@pytest.mark.parametrize(("batches", "count", "size"), ROUNDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crops(driver: Driver, batches: int, count: int, size: int, dtype: type) -> None:
    rng = np.random.default_rng(size)
    rig, cropper = Rig(driver), Cropper(driver, size, dtype)
    for _ in range(batches):
        frames = [random_frame(rng, size, 600) for _ in range(count)]
        pictures = [random_picture(rng, frame) for frame in frames]
        found = rig.crops(cropper, pictures, frames, dtype)
        for frame, picture, crop in zip(frames, pictures, found, strict=True):
            np.testing.assert_array_equal(crop, read_crop(picture, frame.extended, size).transpose(2, 0, 1), str(frame))
    cropper.close()
    driver.destroy_stream(rig.stream)


@pytest.mark.parametrize(("batches", "count", "size"), ROUNDS)
def test_masks(driver: Driver, batches: int, count: int, size: int) -> None:
    rng = np.random.default_rng(size)
    rig, paster = Rig(driver), Paster(driver)
    for _ in range(batches):
        frames = [random_frame(rng, size, 600) for _ in range(count)]
        logits = random_logits(rng, count, size // 4)
        thresholds = rng.uniform(0, 1, count).tolist()
        found = rig.rles(paster, logits, frames, thresholds)
        for rle, *given in zip(found, logits, frames, thresholds, strict=True):
            assert rle == rle_from_logits(*given), given[1:]
    paster.close()
    driver.destroy_stream(rig.stream)


@pytest.mark.parametrize(("batches", "count", "size"), ROUNDS)
def test_qualities(driver: Driver, batches: int, count: int, size: int) -> None:
    """Sums in another order may differ in float64's last digits, which hardly ever are those that rounding asks."""
    rng = np.random.default_rng(size)
    rig, scorer = Rig(driver), QualityScorer(driver)
    different = 0
    for _ in range(batches):
        frames = [random_frame(rng, size, 600) for _ in range(count)]
        logits = random_logits(rng, count, size // 4)
        thresholds = rng.uniform(0, 1, count).tolist()
        found = np.array(rig.qualities(scorer, logits, frames, thresholds))
        expected = np.array([soft_iou(*given) for given in zip(logits, frames, thresholds, strict=True)])
        assert np.abs(found - expected).max() < 2e-4
        different += np.count_nonzero(found != expected)
    assert different <= 1
    scorer.close()
    driver.destroy_stream(rig.stream)


@pytest.mark.parametrize(("batches", "count", "size"), ROUNDS)
def test_refinement(driver: Driver, batches: int, count: int, size: int) -> None:
    """exp and log may differ in float64's last bit, so once in some hundred million values in float32's."""
    rng = np.random.default_rng(size)
    rig, refiner = Rig(driver), Refiner(driver, size)
    different = 0
    for _ in range(batches):
        frames = [random_frame(rng, size, 600) for _ in range(count)]
        crops = rng.integers(0, 256, (count, 3, size // 8, size // 8)).repeat(8, 2).repeat(8, 3).astype(np.uint8)
        logits = random_logits(rng, count, size // 4)
        found = rig.refined(refiner, logits, crops, frames)
        expected = np.stack([refine_colour(*given) for given in zip(logits, crops, frames, strict=True)])
        np.testing.assert_array_max_ulp(found, expected, 1)
        different += np.count_nonzero(found != expected)
    assert different <= 1
    refiner.close()
    driver.destroy_stream(rig.stream)


def test_throughput(driver: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed: 32 boxes of photos in crops of 512, logits of 128, by the GPU's own clock."""
    rng = np.random.default_rng(0)
    count, size, side = 32, 512, 128
    rig, shape = Rig(driver), (32, 128, 128)
    cropper, refiner, paster, pool = Cropper(driver, size), Refiner(driver, size), Paster(driver), PicturePool(driver)
    frames = []
    for _ in range(count):
        low, high = rng.uniform((0, 0), (400, 300)), rng.uniform((30, 30), (240, 180))
        frames.append(make_frame((*low, *(low + high)), 640, 480, size))
    picture = rng.integers(0, 256, (480, 640, 3)).astype(np.uint8)
    into, logits = driver.allocate(count * 3 * size * size), rig.upload(random_logits(rng, count, side))
    first, last = driver.create_event(timing=True), driver.create_event(timing=True)

    def measure(name: str, work: Callable[[], object], rounds: int = 100) -> None:
        for _ in range(5):
            work()
        driver.synchronize(rig.stream)
        driver.record(first, rig.stream)
        for _ in range(rounds):
            work()
        driver.record(last, rig.stream)
        driver.synchronize_event(last)
        seconds = driver.elapsed(first, last) / rounds
        lines.append(f"{driver.provider}: {name}: {seconds * 1e3:.3f} ms a batch, {count / seconds:.0f} boxes/s")

    lines: list[str] = []
    # Always the same batch: what describes it may be written again while it is under way.
    with pool.upload([picture], rig.stream) as uploaded:
        pictures, places = uploaded.pictures * count, [into + i * 3 * size * size for i in range(count)]
        measure("crops", lambda: cropper.cut(pictures, frames, places, rig.stream))
        measure("refinement", lambda: refiner.refine(into, logits, shape, frames, rig.stream))

        def paste() -> None:
            paster.queue(logits, shape, frames, [0.5] * count, rig.stream)
            paster.edges(rig.stream)

        measure("masks, with their way to the host", paste)
    with capsys.disabled():
        print("", *lines, sep="\n")
    for part in (cropper, refiner, paster, pool):
        part.close()
    driver.free(into)
    driver.free(logits)
    driver.destroy_event(first)
    driver.destroy_event(last)
    driver.destroy_stream(rig.stream)
    assert len(lines) == 3
