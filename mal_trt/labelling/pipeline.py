"""The pipeline of a label run: decode and crop, network, paste and encode, all at once, in bounded memory.

The calling thread reads the plan and keeps the results. A few workers decode pictures and cut crops for the batches
ahead, run the network, two batches at once, and turn logits into run lengths. Both queues are bounded.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Protocol

from mal_trt.backends.choice import on_processor
from mal_trt.base.errors import MalTrtError
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.crops import Frame
from mal_trt.labelling.journal import Box, Result
from mal_trt.labelling.masker import Batch, Masker, Picture
from mal_trt.labelling.predictor import Predictor

CUT = 8  # boxes of one picture a worker cuts in one go
FRAMED = 256  # boxes whose crops are placed in one go
BATCHES_AHEAD = 2  # crops waiting for the network, in batches' worth of boxes
LANES = 2  # batches in the network at once: while one waits or is encoded, the other computes
BATCHES_UNDER_WAY = LANES + 1  # full batches not yet in the journal
PIXELS_AHEAD = 1 << 26  # decoded pictures held at once, unless a single one is larger


class Plan(Protocol):
    """What is to be labelled, and where the labels go: a `Journal`, or a part of one in another process."""

    def pending(self) -> Iterator[Box]:
        """Boxes without a result, in the order of the plan."""
        ...

    def picture(self, image: int) -> tuple[str, int, int]:
        """File name, width and height of a picture."""
        ...

    def least(self, image: int) -> float:
        """Shortest side of all boxes of a picture, with a result or without, pixels."""
        ...

    def batch(self, number: int) -> tuple[SizeClass, int]:
        """Size class and boxes of a batch."""
        ...

    def add(self, results: Sequence[Result]) -> None:
        """Keep the outcome of a batch, all of it or nothing."""
        ...


def run_plan(
    plan: Plan,
    source: ImageSource,
    predictor: Predictor,
    masker: Masker,
    batch: int,
    threads: int,
    done: Callable[[int], None] = lambda boxes: None,
) -> None:
    """Label every planned box that has no result yet; `done` is told of each batch of boxes once it is safe.

    threads: of this machine's, all work together; the predictor's network should have `network_threads` of them.
    Whatever is raised, batches that have left the network are in the plan before it leaves here.
    """
    labelled: deque[list[Result]] = deque()  # filled by the workers, so that no interrupt can lose a batch

    def record() -> None:
        while labelled:
            plan.add(labelled[0])
            done(len(labelled.popleft()))

    with ThreadPoolExecutor(_workers(predictor.provider, threads), "mal-trt") as pool:
        under_way: deque[Future[None]] = deque()
        try:
            for filled in _Crops(pool, plan, source, predictor, masker, batch).batches():
                under_way.append(pool.submit(_label, masker, filled, labelled))
                while len(under_way) > BATCHES_UNDER_WAY or (under_way and under_way[0].done()):
                    under_way.popleft().result()
                    record()
            for last in under_way:
                last.result()
                record()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            with suppress(MalTrtError):  # should the plan not take more, the first error says so
                record()
            raise


class _Batch:
    """Boxes of one batch of the plan; those whose picture failed leave holes."""

    def __init__(self, masker: Masker, size: SizeClass, boxes: int) -> None:
        self.slots: Batch = masker.batch(boxes, size)
        self.boxes: list[Box | None] = [None] * boxes
        self.failed: list[Result] = []
        self.missing = boxes


class _Picture:
    """One picture, decoded once, by the first worker that needs it."""

    def __init__(
        self, masker: Masker, source: ImageSource, file_name: str, width: int, height: int, least: float
    ) -> None:
        self.width, self.height = width, height
        self._masker, self._source, self._file_name, self._least = masker, source, file_name, least
        self._lock = threading.Lock()
        self._pixels: Picture | ImageProblem | None = None

    def pixels(self) -> Picture:
        with self._lock:
            if self._pixels is None:
                try:
                    self._pixels = self._masker.load(
                        self._source, self._file_name, (self.width, self.height), self._least
                    )
                except ImageProblem as problem:
                    self._pixels = problem
        if isinstance(self._pixels, ImageProblem):
            raise self._pixels
        return self._pixels


@dataclass(frozen=True)
class _Task:
    """Boxes of one picture for one worker, each with the batch its crop goes into; frames: their crops."""

    picture: _Picture
    boxes: list[tuple[Box, _Batch]]
    frames: list[Frame]

    def cut(self, masker: Masker) -> ImageProblem | None:
        try:
            pixels = self.picture.pixels()
        except ImageProblem as problem:
            return problem
        masker.cut(
            pixels,
            [(batch.slots, box.slot, frame) for (box, batch), frame in zip(self.boxes, self.frames, strict=True)],
        )
        for box, batch in self.boxes:
            batch.boxes[box.slot] = box
        return None


class _Crops:
    """Fills the planned batches, in the order of the plan, a bounded number of crops ahead."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        plan: Plan,
        source: ImageSource,
        predictor: Predictor,
        masker: Masker,
        batch: int,
    ) -> None:
        self._pool, self._plan, self._source = pool, plan, source
        self._predictor, self._masker = predictor, masker
        self._boxes_ahead = BATCHES_AHEAD * batch
        self._ahead: deque[tuple[_Task, Future[ImageProblem | None]]] = deque()

    def batches(self) -> Iterator[_Batch]:
        """Batches whose boxes all have a crop or a reason."""
        tasks = self._tasks()
        task = next(tasks, None)
        while task or self._ahead:
            while task and self._has_room(task.picture):
                self._ahead.append((task, self._pool.submit(task.cut, self._masker)))
                task = next(tasks, None)
            cut, future = self._ahead.popleft()
            problem = future.result()
            for box, batch in cut.boxes:
                if problem:
                    batch.failed.append(Result(box.seq, None, None, problem.reason, problem.detail))
                batch.missing -= 1
                if not batch.missing:
                    yield batch

    def _has_room(self, picture: _Picture) -> bool:
        if not self._ahead:
            return True
        held = {id(task.picture): task.picture for task, _ in self._ahead}
        held[id(picture)] = picture
        return (
            sum(len(task.boxes) for task, _ in self._ahead) < self._boxes_ahead
            and sum(p.width * p.height for p in held.values()) <= PIXELS_AHEAD
        )

    def _tasks(self) -> Iterator[_Task]:
        filling: dict[int, _Batch] = {}
        pending = self._plan.pending()
        picture, shown = None, -1
        while page := list(islice(pending, FRAMED)):
            turns = [(position, list(boxes)) for position, boxes in groupby(page, lambda box: box.image)]
            named = [self._plan.picture(position) for position, _ in turns]
            sides = [name[1:] for name, (_, boxes) in zip(named, turns, strict=True) for _ in boxes]
            frames = iter(self._predictor.frames([box.xyxy for box in page], sides))
            for name, (position, boxes) in zip(named, turns, strict=True):
                if picture is None or position != shown:
                    picture = _Picture(self._masker, self._source, *name, self._plan.least(position))
                    shown = position
                for start in range(0, len(boxes), CUT):
                    part = boxes[start : start + CUT]
                    jobs = [(box, self._batch(box, filling)) for box in part]
                    yield _Task(picture, jobs, list(islice(frames, len(part))))

    def _batch(self, box: Box, filling: dict[int, _Batch]) -> _Batch:
        """The batch of a planned box, made when its first box comes and forgotten when its last has come."""
        if box.batch not in filling:
            filling[box.batch] = _Batch(self._masker, *self._plan.batch(box.batch))
        batch = filling[box.batch]
        if box.slot + 1 == len(batch.boxes):
            del filling[box.batch]
        return batch


def _label(masker: Masker, batch: _Batch, labelled: deque[list[Result]]) -> None:
    from pycocotools import mask as coco

    results = list(batch.failed)
    for box, mask in zip(batch.boxes, masker.masks(batch.slots), strict=True):
        if box and mask:
            area = int(coco.area({**mask.rle, "counts": mask.rle["counts"].encode("ascii")}))
            results.append(Result(box.seq, json.dumps(mask.rle, separators=(",", ":")), area, quality=mask.quality))
    labelled.append(results)


def network_threads(threads: int) -> int:
    """Threads of one run of the network, when `threads` serve the whole pipeline and LANES runs go on at once."""
    return max(1, threads // LANES)


def lanes(threads: int) -> int:
    """Runs of the network that go on at once, when `threads` serve the whole pipeline."""
    return min(LANES, threads)


def _workers(provider: str, threads: int) -> int:
    """Workers: one per thread beside a GPU, fewer where the network itself needs the threads."""
    return min(16, max(lanes(threads), threads // 2) if on_processor(provider) else max(LANES, threads))
