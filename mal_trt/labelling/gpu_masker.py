"""The masker of NVIDIA GPUs: pictures' bytes go up, run lengths come down, and nothing waits for the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Generic, Protocol, TypeVar, cast

import numpy as np

from mal_trt.backends import DeviceBackend
from mal_trt.base.errors import NanLogits
from mal_trt.cuda.buffers import DeviceBuffer, PinnedBuffer
from mal_trt.cuda.crop import Cropper, PicturePool, Pixels
from mal_trt.cuda.decode import JpegDecoder
from mal_trt.cuda.driver import CudaError, Driver
from mal_trt.cuda.paste import Paster
from mal_trt.cuda.quality import QualityScorer
from mal_trt.cuda.refine import Refiner
from mal_trt.formats.images import ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.rle_batch import rles_from_edges
from mal_trt.labelling.masker import Batch, Mask, Picture, Places
from mal_trt.labelling.predictor import Predictor


class GpuMasker:
    """See `Masker`. The predictor's backend must be a `DeviceBackend`; its `close` must come after this one's.

    Each thread that cuts, and each batch in the network, has a stream and buffers of its own for as long as it
    works; they wait in pools for the next one, so that after the first few batches nothing is allocated.
    """

    boxes_at_once, pixels_at_once = (16, 64), 1 << 22

    def __init__(self, predictor: Predictor, decode: str = "cpu") -> None:
        self._predictor = predictor
        self._backend = cast(DeviceBackend, predictor.backend)
        self._on_gpu = decode == "gpu"
        self._driver = self._backend.driver
        self._cutters = _Pool(lambda: _Cutter(predictor, self._backend))
        self._lanes = _Pool(lambda: _Lane(predictor, self._backend))
        self._crops = _Pool(lambda: DeviceBuffer(self._driver))
        self._decoders = _Pool(lambda: JpegDecoder(self._driver))
        if self._on_gpu:  # whether it can shows at once
            with self._driver.current(), self._decoders.lent():
                pass

    def batch(self, frames: Frames, size: SizeClass) -> Batch:
        """See `Masker.batch`; crops is a buffer of the GPU with [boxes,3,S,S]."""
        room = max(len(frames), self._backend.least(size)) * _crop_bytes(self._predictor, size)
        buffer = self._crops.take()
        with self._driver.current():
            if buffer.size < room:
                # Slots whose picture fails keep what was there before, which must be numbers.
                stream = self._driver.create_stream()
                try:
                    self._driver.fill(buffer.reserve(room), 0, room, stream)
                    self._driver.synchronize(stream)
                finally:
                    self._driver.destroy_stream(stream)
        return Batch(frames, size, buffer)

    def load(self, source: ImageSource, file_name: str, expected: tuple[int, int], least: float) -> Picture:
        """See `Masker.load`."""
        if not self._on_gpu:
            return source.load(file_name, expected)
        with self._driver.current(), self._decoders.lent() as decoder:
            return decoder.load(source, file_name, expected)

    def cut(self, pictures: Sequence[Picture], places: Places) -> None:
        """See `Masker.cut`."""
        starts = np.array([batch.crops.pointer for batch in places.batches], np.uint64)
        each = np.array([_crop_bytes(self._predictor, batch.size) for batch in places.batches], np.int64)
        into = starts[places.batch] + (places.slot * each[places.batch]).astype(np.uint64)
        with self._driver.current(), self._cutters.lent() as cutter:
            cutter.cut(pictures, places.picture.tolist(), places.frames, into)

    def masks(self, batch: Batch, logits: bool = False) -> list[Mask | None]:
        """See `Masker.masks`."""
        buffer, batch.crops = batch.crops, None
        try:
            if not batch.cut.any():
                return [None] * len(batch.cut)
            # A slot without a crop gets the frame of another one; its mask is dropped.
            empty = np.flatnonzero(~batch.cut)
            batch.frames.put(empty, batch.frames.part(np.full(len(empty), batch.cut.argmax())))
            with self._driver.current(), self._lanes.lent() as lane:
                found = lane.masks(buffer.pointer, batch.frames, batch.size, logits)
            return [mask if cut else None for mask, cut in zip(found, batch.cut.tolist(), strict=True)]
        finally:
            self._crops.give(buffer)

    def close(self) -> None:
        """See `Masker.close`."""
        with suppress(CudaError), self._driver.current():
            for pool in (self._cutters, self._lanes, self._crops, self._decoders):
                pool.close()


class _Cutter:
    """A stream on which pictures go up and crops are cut."""

    def __init__(self, predictor: Predictor, backend: DeviceBackend) -> None:
        self._driver, contract = backend.driver, predictor.contract
        with ExitStack() as parts:
            self._stream = _stream(self._driver, parts)
            self._pictures = parts.enter_context(closing(PicturePool(self._driver)))
            self._croppers = {
                side: parts.enter_context(closing(Cropper(self._driver, side, contract.input_dtype)))
                for side in contract.sides
            }
            self._parts = parts.pop_all()

    def cut(self, pictures: Sequence[Picture], which: Sequence[int], frames: Frames, into: np.ndarray) -> None:
        """The crop of each frame from one of the pictures, which[n], to a pointer, uint64 [n]."""
        with self._pictures.upload([p for p in pictures if isinstance(p, np.ndarray)], self._stream) as uploaded:
            arrived = iter(uploaded.pictures)
            held = [next(arrived) if isinstance(p, np.ndarray) else Pixels.of(p) for p in pictures]
            try:
                for side, cropper in self._croppers.items():
                    at = np.flatnonzero(frames.size == side)
                    if len(at):
                        cropper.cut([held[which[n]] for n in at.tolist()], frames.part(at), into[at], self._stream)
            except BaseException:
                with suppress(CudaError):
                    self._driver.synchronize(self._stream)
                raise
            self._driver.synchronize(self._stream)

    def close(self) -> None:
        self._parts.close()


class _Lane:
    """A stream on which one batch at a time goes through the network and becomes run lengths."""

    def __init__(self, predictor: Predictor, backend: DeviceBackend) -> None:
        self._predictor, self._backend, self._driver = predictor, backend, backend.driver
        contract, driver = predictor.contract, self._driver
        with ExitStack() as parts:
            self._stream = _stream(driver, parts)
            self._logits, self._others, self._mirrored = (
                parts.enter_context(closing(DeviceBuffer(driver))) for _ in range(3)
            )
            self._refiners = {
                side: parts.enter_context(closing(Refiner(driver, side, contract.input_dtype)))
                for side in contract.sides
            }
            self._paster = parts.enter_context(closing(Paster(driver)))
            self._scorer = parts.enter_context(closing(QualityScorer(driver)))
            self._seen = parts.enter_context(closing(PinnedBuffer(driver)))
            self._parts = parts.pop_all()

    def masks(self, crops: int, frames: Frames, size: SizeClass, keep: bool) -> list[Mask]:
        """Mask of each slot. crops: pointer to [n,3,S,S]. keep: a copy of its logits, too."""
        try:
            return self._masks(crops, frames, size, keep)
        except BaseException:
            # What is queued must not outlive the buffers, which the next batch takes, nor a NaN be found in that one.
            with suppress(CudaError):
                self._driver.synchronize(self._stream)
                for refiner in self._refiners.values():
                    refiner.found_nan()
            raise

    def _masks(self, crops: int, frames: Frames, size: SizeClass, keep: bool) -> list[Mask]:
        count, side = len(frames), self._backend.logits_side(size)
        refiner = self._refiners[self._predictor.contract.side(size)]
        shape = (count, side, side)
        room = max(count, self._backend.least(size)) * side * side * 4
        logits = self._logits.reserve(room)
        self._run(crops, logits, count, size)
        if self._predictor.flip:
            mirrored = self._mirrored.reserve(
                max(count, self._backend.least(size)) * _crop_bytes(self._predictor, size)
            )
            refiner.mirror(crops, mirrored, count, self._stream)
            self._run(mirrored, self._others.reserve(room), count, size)
            refiner.average(logits, self._others.pointer, shape, self._stream)
        if self._predictor.refine == "color":
            refiner.refine(crops, logits, shape, frames, self._stream)
        threshold = self._predictor.thresholds[size]
        self._paster.queue(logits, shape, frames, threshold, self._stream)
        self._scorer.queue(logits, shape, frames, threshold, self._stream)
        kept: Sequence[np.ndarray | None] = [None] * count
        if keep:
            seen = self._seen.reserve(count * side * side * 4)[: count * side * side * 4]
            self._driver.copy_to_host(seen, logits, self._stream)
        edges, counts = self._paster.edges(self._stream)
        if refiner.found_nan():
            raise NanLogits(f"{self._predictor.provider}: the model gave NaN logits; export it with --precision fp32")
        if keep:
            kept = [own.copy() for own in seen.view(np.float32).reshape(shape)]
        rles, areas = rles_from_edges(edges, counts, frames.sides)
        return [Mask(*one) for one in zip(rles, areas, self._scorer.qualities(), kept, strict=True)]

    def _run(self, crops: int, logits: int, count: int, size: SizeClass) -> None:
        self._backend.enqueue(crops, logits, count, size, self._stream, self._predictor.weights)
        side = self._backend.logits_side(size)
        self._refiners[self._predictor.contract.side(size)].check(logits, (count, side, side), self._stream)

    def close(self) -> None:
        self._parts.close()


def _stream(driver: Driver, parts: ExitStack) -> int:
    """A stream that is destroyed with the parts, after all that came later."""
    stream = driver.create_stream()
    parts.callback(driver.destroy_stream, stream)
    return stream


class _Closes(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closes)


class _Pool(Generic[T]):
    """Things that threads take and give back; as many exist as were in use at once."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._idle: list[T] = []
        self._lock = threading.Lock()

    def take(self) -> T:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            thing = self._make()
            self._made.append(thing)
            return thing

    def give(self, thing: T) -> None:
        with self._lock:
            self._idle.append(thing)

    @contextmanager
    def lent(self) -> Iterator[T]:
        thing = self.take()
        try:
            yield thing
        finally:
            self.give(thing)

    def close(self) -> None:
        """Close all that was made, what a failed run never gave back too."""
        with self._lock:
            made, self._made, self._idle = self._made, [], []
        for thing in made:
            with suppress(CudaError):  # a GPU that was lost frees everything by itself
                thing.close()


def _crop_bytes(predictor: Predictor, size: SizeClass) -> int:
    return 3 * predictor.contract.side(size) ** 2 * np.dtype(predictor.contract.input_dtype).itemsize
