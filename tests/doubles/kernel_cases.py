"""Boxes, pictures and logits for the kernels, and what runs their launchers on a driver, a double or a real one."""

from __future__ import annotations

from typing import Any

import numpy as np

from mal_trt.cuda.crop import Cropper, PicturePool
from mal_trt.cuda.driver import Driver
from mal_trt.cuda.paste import Paster
from mal_trt.cuda.quality import QualityScorer
from mal_trt.cuda.refine import Refiner
from mal_trt.geometry.crops import Frame, inner_box, make_frame
from mal_trt.geometry.rle import rle_from_edges


class Rig:
    """A driver with one stream, and what the tests do with it."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.stream = driver, driver.create_stream()

    def upload(self, array: np.ndarray) -> int:
        pointer = self.driver.allocate(array.nbytes)
        array = np.ascontiguousarray(array)
        self.driver.copy_to_device(pointer, array, self.stream)
        self.driver.synchronize(self.stream)
        return pointer

    def read(self, pointer: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        found = np.empty(shape, dtype)
        self.driver.copy_to_host(found, pointer, self.stream)
        self.driver.synchronize(self.stream)
        return found

    def crops(self, cropper: Cropper, pictures: list[np.ndarray], frames: list[Frame], dtype: Any) -> np.ndarray:
        shape = (len(frames), 3, frames[0].size, frames[0].size)
        out = self.driver.allocate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        pool = PicturePool(self.driver)
        uploaded = pool.upload(pictures, self.stream)
        into = [out + index * int(np.prod(shape[1:])) * np.dtype(dtype).itemsize for index in range(len(frames))]
        cropper.cut(uploaded.pictures, frames, into, self.stream)
        found = self.read(out, dtype, shape)
        uploaded.close()
        pool.close()
        self.driver.free(out)
        return found

    def rles(self, paster: Paster, logits: np.ndarray, frames: list[Frame], thresholds: list[float]) -> list[Any]:
        pointer = self.upload(logits)
        paster.queue(pointer, logits.shape, frames, thresholds, self.stream)
        edges, counts = paster.edges(self.stream)
        self.driver.free(pointer)
        parts = np.split(edges.astype(np.int64), np.cumsum(counts)[:-1])
        return [rle_from_edges(at, frame.height, frame.width) for at, frame in zip(parts, frames, strict=True)]

    def qualities(
        self, scorer: QualityScorer, logits: np.ndarray, frames: list[Frame], thresholds: float | list[float]
    ) -> list[float]:
        pointer = self.upload(logits)
        scorer.queue(pointer, logits.shape, frames, thresholds, self.stream)
        self.driver.synchronize(self.stream)
        self.driver.free(pointer)
        return scorer.qualities()

    def refined(self, refiner: Refiner, logits: np.ndarray, crops: np.ndarray, frames: list[Frame]) -> np.ndarray:
        image, values = self.upload(crops), self.upload(logits)
        refiner.refine(image, values, logits.shape, frames, self.stream)
        found = self.read(values, np.float32, logits.shape)
        self.driver.free(image)
        self.driver.free(values)
        return found


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_frame(rng: np.random.Generator, size: int, side: float = 300) -> Frame:
    """A box in a picture of any shape, down to one pixel."""
    width, height = (int(log_uniform(rng, 1, side)) for _ in range(2))
    x0, x1 = np.sort(rng.uniform(0, width, 2))
    y0, y1 = np.sort(rng.uniform(0, height, 2))
    return make_frame((x0, y0, x1, y1), width, height, size)


def framed(extended: tuple[int, int, int, int], width: int, height: int, size: int) -> Frame:
    """A frame of any extended box; the box is its middle."""
    x0, y0, x1, y1 = extended
    box = (x0 + (x1 - x0) / 8, y0 + (y1 - y0) / 8, x1 - (x1 - x0) / 8, y1 - (y1 - y0) / 8)
    return Frame(box, extended, inner_box(box, extended, width, height, size), width, height, size)


def random_picture(rng: np.random.Generator, frame: Frame) -> np.ndarray:
    """Noise, or flat parts with hard edges, which overshoot."""
    shape = (frame.height, frame.width, 3)
    return (rng.integers(0, 2, shape) * 255 if rng.random() < 0.3 else rng.integers(0, 256, shape)).astype(np.uint8)


def random_logits(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Blobs with noise, each of its own strength."""
    y, x = np.mgrid[:side, :side][:, None] / side - rng.uniform(0.2, 0.8, (2, count, 1, 1))
    blob = rng.uniform(1, 8, (count, 1, 1)) - rng.uniform(5, 80, (count, 1, 1)) * (x**2 + y**2)
    return (blob + rng.normal(0, 1, (count, side, side)) * rng.uniform(0, 4, (count, 1, 1))).astype(np.float32)
