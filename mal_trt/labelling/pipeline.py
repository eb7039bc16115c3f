"""The pipeline of a label run: decode and crop, network, paste and encode, all at once, in bounded memory.

The calling thread reads the plan and keeps the results. A few workers decode pictures and cut crops for the batches
ahead, run the network, two batches at once, and turn logits into run lengths. Both queues are bounded.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mal_trt.backends.choice import on_processor
from mal_trt.base.errors import MalTrtError
from mal_trt.formats.images import ImageProblem, ImageSource
from mal_trt.geometry.boxes import SizeClass
from mal_trt.geometry.frames import Frames
from mal_trt.geometry.rle_batch import rle_json
from mal_trt.labelling.journal import Result
from mal_trt.labelling.masker import Batch, Masker, Picture, Places
from mal_trt.labelling.plan_chunk import PlanChunk, Planned
from mal_trt.labelling.predictor import Predictor

BATCHES_AHEAD = 2  # crops waiting for the network, in batches' worth of boxes
LANES = 2  # batches in the network at once: while one waits or is encoded, the other computes
BATCHES_UNDER_WAY = LANES + 1  # full batches not yet in the journal
RECORDED = 256  # boxes recorded together where there is no time to wait in
PIXELS_AHEAD = 1 << 26  # decoded pictures held at once, unless a single one is larger
UNREAD = np.zeros((1, 1, 3), np.uint8)  # in the place of a picture that no crop is cut from


class Plan(Protocol):
    """What is to be labelled, and where the labels go: a `Journal`, or a part of one in another process."""

    def chunks(self) -> Iterator[PlanChunk]:
        """Boxes without a result, in the order of the plan, many at a time."""
        ...

    def add(self, results: Sequence[Result]) -> None:
        """Keep the outcome of whole batches, all of it or nothing."""
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
    """Label every planned box that has no result yet; `done` is called with how many boxes are safe now.

    threads: of this machine's, all work together; the predictor's network should have `network_threads` of them.
    Whatever is raised, batches that have left the network are in the plan before it leaves here; and so they are
    whenever the calling thread has to wait.
    """
    labelled: deque[list[Result]] = deque()  # filled by the workers, so that no interrupt can lose a batch

    def record(least: int = 1) -> None:
        whole = list(labelled)
        found = [result for batch in whole for result in batch]
        if len(found) >= least:
            plan.add(found)
            for _ in whole:
                labelled.popleft()
            done(len(found))

    workers = _workers(predictor.provider, threads)
    # Enough for every worker to have something to cut, and few enough for CUDA graphs to meet their buffers again.
    least, most = masker.boxes_at_once
    at_once = max(least, min(most, BATCHES_AHEAD * batch // workers))
    ahead = max(BATCHES_AHEAD * batch, workers * least)
    with ThreadPoolExecutor(workers, "mal-trt") as pool:
        under_way: deque[Future[None]] = deque()
        try:
            for filled in _Crops(pool, plan, source, predictor, masker, at_once, ahead, record).batches():
                under_way.append(pool.submit(_label, masker, filled, labelled))
                while len(under_way) > BATCHES_UNDER_WAY or (under_way and under_way[0].done()):
                    if not under_way[0].done():
                        record()
                    under_way.popleft().result()
                record(RECORDED)
            for last in under_way:
                last.result()
                record()
            record()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            with suppress(MalTrtError):  # should the plan not take more, the first error says so
                record()
            raise


class _Batch:
    """Boxes of one batch of the plan; those whose picture failed leave holes. seq: of each slot, as in `Result`."""

    def __init__(self, size: SizeClass, boxes: int, side: int) -> None:
        self.size, self.frames, self.seq = size, Frames.room(boxes, side), np.zeros(boxes, np.int64)
        self.failed: list[Result] = []
        self.coming = self.missing = boxes  # not yet given to a worker; without a crop or a reason
        self._slots: Batch | None = None

    def slots(self, masker: Masker) -> Batch:
        """Room for the crops, made when the first is to be cut."""
        if self._slots is None:
            self._slots = masker.batch(self.frames, self.size)
        return self._slots

    def fail(self, slot: int, problem: ImageProblem) -> None:
        """There will be no crop."""
        assert self._slots is not None
        self._slots.cut[slot] = False
        self.failed.append(Result(int(self.seq[slot]), None, None, problem.reason, problem.detail))


class _Picture:
    """One picture, decoded once, by the first worker that needs it."""

    def __init__(self, masker: Masker, source: ImageSource, planned: Planned) -> None:
        self.size = planned.width * planned.height
        self._masker, self._source, self._planned = masker, source, planned
        self._lock = threading.Lock()
        self._pixels: Picture | ImageProblem | None = None

    def pixels(self) -> Picture:
        with self._lock:
            if self._pixels is None:
                try:
                    name, width, height, least = self._planned
                    self._pixels = self._masker.load(self._source, name, (width, height), least)
                except ImageProblem as problem:
                    self._pixels = problem
        if isinstance(self._pixels, ImageProblem):
            raise self._pixels
        return self._pixels


@dataclass(frozen=True, eq=False)
class _Task:
    """Boxes for one worker to cut, of a few pictures. batches: those of `places`. boxes: how many go into each."""

    pictures: list[_Picture]
    batches: list[_Batch]
    boxes: list[int]
    places: Places

    def cut(self, masker: Masker) -> dict[int, ImageProblem]:
        """Cut what can be cut; what was wrong with the pictures that cannot be read, by their number."""
        pictures: list[Picture] = []
        problems: dict[int, ImageProblem] = {}
        for number, picture in enumerate(self.pictures):
            try:
                pictures.append(picture.pixels())
            except ImageProblem as problem:
                problems[number] = problem
                pictures.append(UNREAD)
        places = self.places
        if problems:
            places = places.part(~np.isin(places.picture, list(problems)))
        if len(places.frames):
            masker.cut(pictures, places)
        return problems


class _Crops:
    """Fills the planned batches, in the order of the plan, `ahead` crops ahead, `at_once` of them by one worker.

    waits: called before the calling thread waits for a worker.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        plan: Plan,
        source: ImageSource,
        predictor: Predictor,
        masker: Masker,
        at_once: int,
        ahead: int,
        waits: Callable[[], None],
    ) -> None:
        self._pool, self._plan, self._source = pool, plan, source
        self._predictor, self._masker = predictor, masker
        self._at_once, self._most, self._waits = at_once, ahead, waits
        self._ahead: deque[tuple[_Task, Future[dict[int, ImageProblem]]]] = deque()
        self._boxes_ahead = 0
        self._held: Counter[_Picture] = Counter()  # pictures of what is ahead, and by how many tasks

    def batches(self) -> Iterator[_Batch]:
        """Batches whose boxes all have a crop or a reason."""
        tasks = self._tasks()
        task = next(tasks, None)
        while task or self._ahead:
            while task and self._has_room(task):
                self._ahead.append((task, self._pool.submit(task.cut, self._masker)))
                self._boxes_ahead += len(task.places.slot)
                self._held.update(task.pictures)
                task = next(tasks, None)
            cut, future = self._ahead.popleft()
            if not future.done():
                self._waits()
            problems = future.result()
            self._boxes_ahead -= len(cut.places.slot)
            for picture in cut.pictures:
                self._held[picture] -= 1
                if not self._held[picture]:
                    del self._held[picture]
            for at in np.flatnonzero(np.isin(cut.places.picture, list(problems))).tolist() if problems else ():
                problem = problems[int(cut.places.picture[at])]
                cut.batches[cut.places.batch[at]].fail(int(cut.places.slot[at]), problem)
            for batch, boxes in zip(cut.batches, cut.boxes, strict=True):
                batch.missing -= boxes
                if not batch.missing:
                    yield batch

    def _has_room(self, task: _Task) -> bool:
        if not self._ahead:
            return True
        new = sum(picture.size for picture in task.pictures if picture not in self._held)
        return self._boxes_ahead < self._most and new + sum(p.size for p in self._held) <= PIXELS_AHEAD

    def _tasks(self) -> Iterator[_Task]:
        filling: dict[int, _Batch] = {}
        shown, picture = -1, None
        for chunk in self._plan.chunks():
            image, batch, slot = chunk.image, chunk.batch, chunk.slot
            starts = np.flatnonzero(np.diff(image, prepend=-1))
            turn = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(image)))
            positions = image[starts].tolist()
            sides = np.array([chunk.pictures[position][1:3] for position in positions], np.int64)
            frames = self._predictor.frames(chunk.box, sides[turn])
            for number, (size, boxes) in chunk.batches.items():
                one = filling.setdefault(number, _Batch(size, boxes, self._predictor.contract.side(size)))
                own = np.flatnonzero(batch == number)
                one.frames.put(slot[own], frames.part(own))
                one.seq[slot[own]] = chunk.seq[own]
            for first, last in self._parts([*starts.tolist(), len(chunk)], sides.prod(axis=1).tolist()):
                part = slice(first, last)
                begin = int(turn[first])
                # Only now, and held by the task alone: a chunk has more pictures than memory takes.
                pictures: list[_Picture] = []
                for position in positions[begin : int(turn[last - 1]) + 1]:
                    if picture is None or position != shown:
                        shown, picture = position, _Picture(self._masker, self._source, chunk.pictures[position])
                    pictures.append(picture)
                numbers: dict[int, int] = {}
                which = np.array([numbers.setdefault(number, len(numbers)) for number in batch[part].tolist()])
                counts = np.bincount(which).tolist()
                batches = [filling[number] for number in numbers]
                for number, boxes in zip(numbers, counts, strict=True):
                    filling[number].coming -= boxes
                    if not filling[number].coming:
                        del filling[number]
                slots = [one.slots(self._masker) for one in batches]
                places = Places(frames.part(part), turn[part] - begin, slots, which, slot[part])
                yield _Task(pictures, batches, counts, places)

    def _parts(self, ends: list[int], pixels: list[int]) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) of boxes for one worker. ends: where the boxes of each picture begin, and the last
        one's end. pixels: of each picture."""
        begin, held = ends[0], 0
        for first, last, size in zip(ends, ends[1:], pixels, strict=False):
            if first > begin and (last - begin > self._at_once or held + size > self._masker.pixels_at_once):
                yield begin, first
                begin, held = first, 0
            held += size
            while last - begin > self._at_once:
                yield begin, begin + self._at_once
                begin, held = begin + self._at_once, size
        yield begin, ends[-1]


def _label(masker: Masker, batch: _Batch, labelled: deque[list[Result]]) -> None:
    results = list(batch.failed)
    for seq, mask in zip(batch.seq.tolist(), masker.masks(batch.slots(masker)), strict=True):
        if mask:
            results.append(Result(seq, rle_json(mask.rle), mask.area, None, None, mask.quality))
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
