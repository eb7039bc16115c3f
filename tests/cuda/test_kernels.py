"""The kernels through their launchers, bit for bit the processor's path: in NumPy, and their own sources by g++."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from compiled_kernels import compiled
from host_cuda import HostDriver
from kernel_cases import Rig, framed, random_frame, random_logits, random_picture
from kernels import KERNELS
from mal_trt.base.errors import InputError
from mal_trt.cuda import crop as crop_module
from mal_trt.cuda import paste as paste_module
from mal_trt.cuda.crop import Cropper, PicturePool
from mal_trt.cuda.paste import Paster
from mal_trt.cuda.quality import QualityScorer
from mal_trt.cuda.refine import Refiner
from mal_trt.geometry.crops import make_frame, read_crop
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.quality import soft_iou
from mal_trt.geometry.refine import refine_colour

Functions = dict[str, Callable[..., None]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Functions:
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels' sources with")
    return compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module", params=["numpy", "g++"])
def functions(request: pytest.FixtureRequest) -> Functions:
    return KERNELS if request.param == "numpy" else request.getfixturevalue("sources")


@pytest.fixture(params=["eager", "deferred"])
def rig(functions: Functions, request: pytest.FixtureRequest) -> Iterator[Rig]:
    driver = HostDriver(functions, mode=request.param)
    with driver.current():
        rig = Rig(driver)
        yield rig
        driver.destroy_stream(rig.stream)
        assert not any(driver.living.values()), driver.living


@pytest.mark.parametrize("seed", range(5))
def test_crops(rig: Rig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, dtype = int(rng.choice([32, 48, 96])), (np.uint8, np.float32)[seed % 2]
    cropper = Cropper(rig.driver, size, dtype)
    for _ in range(4):
        frames = [random_frame(rng, size) for _ in range(int(rng.integers(1, 16)))]
        pictures = [random_picture(rng, frame) for frame in frames]
        found = rig.crops(cropper, pictures, frames, dtype)
        for frame, picture, crop in zip(frames, pictures, found, strict=True):
            expected = read_crop(picture, frame.extended, size).transpose(2, 0, 1)
            np.testing.assert_array_equal(crop, expected, str(frame))
    cropper.close()


@pytest.mark.parametrize(
    ("extended", "width", "height"),
    [
        ((-30, -17, 41, 50), 7, 5),  # several times round a tiny picture
        ((0, 0, 1, 1), 50, 50),
        ((49, 10, 50, 43), 50, 50),  # one pixel wide
        ((0, 0, 32, 32), 50, 50),  # nothing to resize
        ((3, 0, 35, 40), 50, 50),  # one axis alone
        ((3, 0, 43, 32), 50, 50),
        ((0, 0, 960, 960), 1000, 970),  # shrunk 30 times
        ((5, 5, 20, 900), 30, 910),  # tall: Pillow 13 would take the columns first
        ((5, 5, 900, 20), 910, 30),
        ((-400, 300, -300, 500), 60, 40),  # wholly outside
        ((0, 0, 3, 2), 1, 1),
    ],
)
def test_odd_crops(rig: Rig, extended: tuple[int, int, int, int], width: int, height: int) -> None:
    frame = framed(extended, width, height, 32)
    picture = random_picture(np.random.default_rng(0), frame)
    cropper = Cropper(rig.driver, 32)
    (found,) = rig.crops(cropper, [picture], [frame], np.uint8)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), read_crop(picture, extended, 32))
    cropper.close()


def test_crops_in_groups_are_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    frames = [random_frame(rng, 32) for _ in range(12)]
    pictures = [random_picture(rng, frame) for frame in frames]
    cropper = Cropper(rig.driver, 32)
    whole = rig.crops(cropper, pictures, frames, np.uint8)
    monkeypatch.setattr(crop_module, "ROWS_LIMIT", 100 * 32 * 3)
    before = rig.driver.calls["launch"]
    np.testing.assert_array_equal(rig.crops(cropper, pictures, frames, np.uint8), whole)
    assert rig.driver.calls["launch"] - before > 5
    cropper.close()


@pytest.mark.parametrize("seed", range(5))
def test_masks(rig: Rig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice([32, 64, 96]))
    paster = Paster(rig.driver)
    for _ in range(4):
        frames = [random_frame(rng, size, 400) for _ in range(int(rng.integers(1, 12)))]
        side = int(rng.choice([5, size // 4, size // 2, size]))
        logits = random_logits(rng, len(frames), side)
        thresholds = rng.uniform(0, 1, len(frames)).tolist()
        found = rig.rles(paster, logits, frames, thresholds)
        for rle, *given in zip(found, logits, frames, thresholds, strict=True):
            assert rle == rle_from_logits(*given), given[1:]
    paster.close()


def test_masks_without_a_switch_or_with_many(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty and full masks, boxes outside, NaN and infinite logits; then noise beyond the first room."""
    rng = np.random.default_rng(1)
    outside = make_frame((100, 100, 120, 120), 64, 48, 64)
    inside = make_frame((10, 12, 30, 28), 64, 48, 64)
    whole = make_frame((0, 0, 64, 48), 64, 48, 64)
    paster = Paster(rig.driver)
    values = (np.nan, np.inf, -np.inf, 0, 200, -200, 50)
    frames = [outside, inside, whole, inside, outside, whole, whole]
    logits = np.stack([np.full((16, 16), value, np.float32) for value in values])
    logits[1, 4:9] = -np.inf
    for threshold in (0.0, 0.5):
        found = rig.rles(paster, logits, frames, [threshold] * 7)
        with np.errstate(invalid="ignore"):
            assert found == [rle_from_logits(*given, threshold) for given in zip(logits, frames, strict=True)]
    assert rig.rles(paster, logits[:1], [outside], [0.5]) == [rle_from_logits(logits[0], outside, 0.5)]

    monkeypatch.setattr(paste_module, "GUESS", 0)
    fresh = Paster(rig.driver)
    noise = rng.normal(0, 9, (4, 64, 64)).astype(np.float32)
    frames = [make_frame((0, 0, 200, 150), 200, 150, 64), inside, whole, make_frame((3, 3, 90, 90), 400, 300, 64)]
    expected = [rle_from_logits(*given, 0.5) for given in zip(noise, frames, strict=True)]
    before = rig.driver.calls["launch"]
    assert rig.rles(fresh, noise, frames, [0.5] * 4) == expected
    assert rig.driver.calls["launch"] - before == 8  # twice, for want of room
    assert rig.rles(fresh, noise, frames, [0.5] * 4) == expected
    assert rig.driver.calls["launch"] - before == 12
    monkeypatch.setattr(paste_module, "SCRATCH_LIMIT", 1)
    assert rig.rles(fresh, noise, frames, [0.5] * 4) == expected
    assert rig.driver.calls["launch"] - before == 28
    paster.close()
    fresh.close()


def test_probabilities_are_the_same_to_the_last_bit(rig: Rig) -> None:
    """Flat logits whose probability is the threshold itself: one bit more and all of the box is mask."""
    values = np.random.default_rng(0).normal(0, 4, 64).astype(np.float32)
    power = np.exp(-values.astype(np.float64)).astype(np.float32)
    thresholds = (1 / (1 + power)).tolist()
    logits = np.repeat(values, 16).reshape(64, 4, 4)
    frames = [make_frame((10, 12, 30, 28), 64, 48, 32)] * 64
    paster = Paster(rig.driver)
    found = rig.rles(paster, logits, frames, thresholds)
    assert found == [rle_from_logits(*given) for given in zip(logits, frames, thresholds, strict=True)]
    assert len({rle["counts"] for rle in found}) > 1  # weights that add up to a little more than 1
    paster.close()


def test_masks_of_huge_pictures(rig: Rig) -> None:
    """Indices beyond 31 bits, and windows of many segments and chunks."""
    paster = Paster(rig.driver)
    frames = [
        make_frame((64_900.5, 65_900, 64_999, 65_999), 65_000, 66_000, 64),
        make_frame((0, 0, 1500, 900), 1500, 900, 64),
    ]
    logits = random_logits(np.random.default_rng(4), 2, 16)
    found = rig.rles(paster, logits, frames, [0.3, 0.6])
    assert found == [rle_from_logits(*given) for given in zip(logits, frames, (0.3, 0.6), strict=True)]
    with pytest.raises(InputError, match="too large"):
        paster.queue(0, (1, 16, 16), [make_frame((0, 0, 9, 9), 70_000, 70_000, 64)], [0.5], rig.stream)
    assert not any(part.size for part in paster.edges(rig.stream))
    paster.close()


@pytest.mark.parametrize("seed", range(5))
def test_qualities(rig: Rig, seed: int) -> None:
    """In all digits that are kept; empty masks, infinite logits, and boxes that the crop does not show."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([32, 64, 96]))
    scorer = QualityScorer(rig.driver)
    for count in (7, 1, 12):
        frames = [random_frame(rng, size, 400) for _ in range(count)]
        frames[-1] = make_frame((100, 100, 120, 120), 64, 48, size)
        logits = random_logits(rng, count, int(rng.choice([5, size // 4, size])))
        logits[0] = rng.choice([-np.inf, -500, 0, 500, np.inf])
        thresholds = rng.uniform(0, 1, count).tolist()
        found = rig.qualities(scorer, logits, frames, thresholds)
        assert found == [soft_iou(*given) for given in zip(logits, frames, thresholds, strict=True)]
        one = rig.qualities(scorer, logits, frames, 0.4)
        assert one == [soft_iou(*given, 0.4) for given in zip(logits, frames, strict=True)]
        assert len(set(found)) > count // 2
    scorer.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("seed", range(3))
def test_refinement(rig: Rig, seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    size, side = 48, (48, 12, 24)[seed]
    refiner = Refiner(rig.driver, size, dtype)
    for count in (5, 1, 8):
        frames = [random_frame(rng, size) for _ in range(count)]
        coarse = rng.integers(0, 256, (count, 3, size // 8, size // 8))
        crops = (coarse.repeat(8, 2).repeat(8, 3) // rng.integers(1, 4)).astype(dtype)
        logits = random_logits(rng, count, side)
        logits[0] = rng.choice([-np.inf, -1e4, 0, 1e4, np.inf])
        found = rig.refined(refiner, logits, crops, frames)
        for own, *given in zip(found, logits, crops, frames, strict=True):
            np.testing.assert_array_equal(own, refine_colour(*given))
    refiner.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mirrored_crops_and_their_logits(rig: Rig, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (3, 3, 20, 20)).astype(dtype)
    logits, others = rng.normal(0, 3, (2, 3, 5, 5)).astype(np.float32)
    refiner = Refiner(rig.driver, 20, dtype)
    image, turned, values, mirrored = (rig.upload(a) for a in (crops, np.zeros_like(crops), logits, others))
    refiner.mirror(image, turned, 3, rig.stream)
    np.testing.assert_array_equal(rig.read(turned, dtype, crops.shape), crops[..., ::-1])
    refiner.average(values, mirrored, (3, 5, 5), rig.stream)
    np.testing.assert_array_equal(rig.read(values, np.float32, logits.shape), (logits + others[..., ::-1]) / 2)
    for pointer in (image, turned, values, mirrored):
        rig.driver.free(pointer)
    refiner.close()


def test_nan_is_found_once(rig: Rig) -> None:
    refiner = Refiner(rig.driver, 20)
    good = np.array([[[0.5, np.inf], [-np.inf, -0.0]]] * 90, np.float32)
    bad = good.copy()
    bad[-1, 1, 1] = np.nan
    sound, broken = rig.upload(good), rig.upload(bad)

    def found(*pointers: int) -> bool:
        for pointer in pointers:
            refiner.check(pointer, good.shape, rig.stream)
        rig.driver.synchronize(rig.stream)
        return refiner.found_nan()

    assert not refiner.found_nan()
    assert not found(sound)
    assert found(broken, sound) and not refiner.found_nan()
    assert not found(sound) and found(broken)
    rig.driver.free(sound)
    rig.driver.free(broken)
    refiner.close()


@pytest.mark.parametrize("integrated", [False, True])
def test_pictures_share_a_bounded_pool(integrated: bool) -> None:
    driver = HostDriver(KERNELS, integrated=integrated)
    rng = np.random.default_rng(0)
    with driver.current():
        stream = driver.create_stream()
        pool = PicturePool(driver, idle=1 << 20)
        for _ in range(20):
            pictures = [rng.integers(0, 256, (*rng.integers(140, 160, 2), 3)).astype(np.uint8) for _ in range(2)]
            with pool.upload([picture[:, ::-1] for picture in pictures], stream) as uploaded:
                assert [at.pointer % 256 for at in uploaded.pictures] == [0, 0]
                for at, picture in zip(uploaded.pictures, pictures, strict=True):
                    on_device = driver.host.array(at.pointer, np.uint8, (at.height, at.width, 3))
                    np.testing.assert_array_equal(on_device, picture[:, ::-1])
            uploaded.close()
        with pool.upload([], stream) as nothing:
            assert not nothing.pictures
        assert driver.calls["allocate_pinned"] <= 2
        assert driver.calls["copy_to_device"] == (0 if integrated else 20)
        held = [pool.upload([np.zeros((220, 220, 3), np.uint8)], stream) for _ in range(12)]
        assert driver.living["pinned"] == 12
        for uploaded in held:
            uploaded.close()
        assert 5 <= driver.living["pinned"] <= 6  # what 1 MiB holds
        last = pool.upload([picture], stream)
        pool.close()
        last.close()
        assert driver.living["pinned"] == driver.living["memory"] == 0


def test_a_failing_upload_gives_its_memory_back() -> None:
    driver = HostDriver(KERNELS)
    with driver.current():
        stream = driver.create_stream()
        pool = PicturePool(driver)
        driver.fail_on("copy_to_device")
        with pytest.raises(Exception, match="CUDA"):
            pool.upload([np.zeros((9, 9, 3), np.uint8)], stream)
        pool.close()
        assert driver.living["pinned"] == driver.living["memory"] == 0


def test_wrong_arguments_are_noticed(sources: Functions) -> None:
    """The double that runs the sources checks the types of arguments, as CUDA does not."""
    with pytest.raises(AssertionError, match="logits_nan"):
        sources["logits_nan"]((1, 1, 1), (1, 1, 1), None, np.uint64(0), np.int32(0), np.uint64(0))


def test_both_doubles_have_all_kernels(sources: Functions) -> None:
    assert sources.keys() == KERNELS.keys()
