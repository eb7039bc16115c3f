"""Masks for the boxes of all clients: crops, network and masks are `Labeler`'s, the batches are shared."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from mal_trt.artifacts.contract import Contract
from mal_trt.artifacts.models import resolve_model
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.geometry.boxes import SizeClass, clip_box
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.paste import rle_from_logits
from mal_trt.geometry.quality import soft_iou
from mal_trt.geometry.rle import RLE, encode_rle
from mal_trt.labelling.labeler import NOTHING, checked_boxes
from mal_trt.labelling.masker import Masker, draw
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.pipeline import LANES
from mal_trt.labelling.predictor import Predictor, batch_size
from mal_trt.labelling.second_pass import draw_again
from mal_trt.serve.queues import BoxQueues, Job, Overloaded, Result, Waiting
from mal_trt.serve.settings import ServeSettings

__all__ = ["Inference", "Overloaded", "Result"]

log = logging.getLogger(__name__)
Observer = Callable[[SizeClass, int, float], None]


class Inference:
    """A model that labels the boxes of many clients at once.

    watch: called after each batch with its size class, its boxes, and the seconds from crops to masks. InputError or
    RunError if the model cannot be run with these settings.
    """

    def __init__(self, settings: ServeSettings, watch: Observer | None = None) -> None:
        limits = settings.limits
        self.path: Path = resolve_model(settings.model, settings.weights)
        self._watch = watch
        self._opened: list[tuple[Predictor, Masker]] = []
        try:
            for device in settings.device.split(","):
                self._opened.append(_open(self.path, device.strip(), settings))
            most = [predictor.most for predictor, _ in self._opened]
            self._batches = [batch_size(settings.batch, one) for one in most]
        except BaseException:
            self._free()
            raise
        self._twice = settings.second_pass
        self._queues = BoxQueues(limits.queue, limits.held_pixels, limits.wait)
        self._lanes = [
            threading.Thread(target=self._work, args=(*opened, batch), name=f"mal-trt-lane-{lane}", daemon=True)
            for opened, batch in zip(self._opened, self._batches, strict=True)
            for lane in range(LANES)
        ]
        for lane in self._lanes:
            lane.start()

    @property
    def contract(self) -> Contract:
        """What the model says about itself."""
        return self._opened[0][0].contract

    @property
    def predictor(self) -> Predictor:
        """The model and its options."""
        return self._opened[0][0]

    @property
    def providers(self) -> list[str]:
        """What really runs the model, for each device."""
        return [predictor.provider for predictor, _ in self._opened]

    @property
    def waiting(self) -> int:
        """Boxes that wait for the network."""
        return len(self._queues)

    @property
    def running(self) -> bool:
        """Whether it takes boxes, and every thread that labels is there."""
        return all(lane.is_alive() for lane in self._lanes)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While a picture is decoded whose boxes will come, so that a batch may wait for them."""
        with self._queues.expecting():
            yield

    async def masks(self, picture: np.ndarray, boxes: Any, format: str = "xyxy") -> list[Result]:
        """The masks of the boxes of one picture, in their order, equal to those of `Labeler`.

        picture: uint8 [H,W,3] RGB, which must not change until they are there. boxes: numbers [N,4] in pixels, of a
        format of `Labeler`. InputError for a box that cannot be used, Overloaded if too many wait, RunError if the
        network fails.
        """
        height, width = picture.shape[:2]
        clipped = [clip_box(box, width, height) for box in checked_boxes(boxes, format)]
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[MalTrtError | None] = loop.create_future()

        def tell(error: MalTrtError | None) -> None:
            if not finished.done():  # else its client is gone
                finished.set_result(error)

        def done(error: MalTrtError | None) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(tell, error)

        job = Job(picture, clipped, done)
        if job.missing:
            self._queues.put(job)
            try:
                error = await finished
            except BaseException:
                job.ended = True
                self._queues.drop(job)
                raise
            if error is not None:
                raise error
        nothing = Result(None, None, encode_rle(NOTHING, height, width), 0.0)
        return [result or nothing for result in job.results]

    def rethreshold(self, result: Result, threshold: float) -> RLE:
        """The mask of a result at another probability, 0 to below 1, without the network."""
        if result.frame is None or result.logits is None:
            return result.rle
        return rle_from_logits(result.logits, result.frame, checked_threshold(threshold))

    def at(self, result: Result, threshold: float | None) -> Result:
        """The result with mask and score at another probability; None: as it is."""
        if threshold is None or result.frame is None or result.logits is None:
            return result
        score = soft_iou(result.logits, result.frame, checked_threshold(threshold))
        return result._replace(rle=self.rethreshold(result, threshold), score=score)

    def close(self, seconds: float | None = None) -> None:
        """Finish what waits, in `seconds` at most, and free the model."""
        self._queues.close()
        for lane in self._lanes:
            lane.join(seconds)
        if not any(lane.is_alive() for lane in self._lanes):  # else they still need it
            self._free()

    def _free(self) -> None:
        for predictor, masker in self._opened:
            masker.close()
            predictor.close()
        self._opened = []

    def _work(self, predictor: Predictor, masker: Masker, most: int) -> None:
        while (taken := self._queues.take(most)) is not None:
            size, batch = taken
            began = monotonic()
            try:
                self._label(predictor, masker, size, batch)
            except MalTrtError as error:
                self._fail(batch, error)
            except Exception as error:
                log.exception("a batch of %d boxes failed", len(batch))
                self._fail(batch, RunError(f"the masks could not be made ({type(error).__name__})"))
            self._queues.finished(batch)
            if self._watch:
                self._watch(size, len(batch), monotonic() - began)

    def _label(self, predictor: Predictor, masker: Masker, size: SizeClass, batch: Sequence[Waiting]) -> None:
        jobs = list({id(one.job): one.job for one in batch}.values())
        at = {id(job): number for number, job in enumerate(jobs)}
        own = []
        for one in batch:
            box = one.job.boxes[one.place]
            assert box is not None
            height, width = one.job.picture.shape[:2]
            own.append(predictor.frame(box, width, height))
        pictures, which = [job.picture for job in jobs], [at[id(one.job)] for one in batch]
        frames = Frames.of(own)
        masks = draw(masker, pictures, frames, size, which, logits=True)
        if self._twice:
            frames, masks = draw_again(predictor, masker, pictures, frames, masks, which, logits=True)
        for one, frame, mask in zip(batch, frames, masks, strict=True):
            one.job.put(one.place, Result(frame, mask.logits, mask.rle, mask.quality))

    @staticmethod
    def _fail(batch: Sequence[Waiting], error: MalTrtError) -> None:
        for one in batch:
            one.job.fail(error)


def checked_threshold(threshold: float) -> float:
    """A probability from 0 to below 1; InputError for anything else."""
    if not 0 <= threshold < 1:
        raise InputError(f"threshold {threshold}: expected a number from 0 to below 1")
    return threshold


def _open(path: Path, device: str, settings: ServeSettings) -> tuple[Predictor, Masker]:
    predictor = Predictor(
        path,
        device,
        threshold=settings.threshold,
        flip=settings.flip,
        refine=settings.refine,
        weights=settings.weights,
        threads=settings.threads,
        slack=settings.slack,
        backend=settings.backend,
    )
    try:
        return predictor, open_masker(predictor, settings.crops)
    except BaseException:
        predictor.close()
        raise
