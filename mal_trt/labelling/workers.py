"""Who labels: this process, or one process for each of several GPUs, with the journal kept by this one alone."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from mal_trt.backends.choice import AUTO
from mal_trt.base.digest import file_sha256
from mal_trt.base.errors import InputError, MalTrtError, RunError
from mal_trt.formats.images import ImageSource, open_images
from mal_trt.labelling.journal import Result
from mal_trt.labelling.masker import Masker
from mal_trt.labelling.open_masker import open_masker
from mal_trt.labelling.pipeline import Plan, lanes, network_threads, run_plan
from mal_trt.labelling.plan_chunk import PlanChunk
from mal_trt.labelling.predictor import TIGHT, Predictor, Threshold

# Boxes a process gets at once, in whole batches: few at first, so that a short run has some for all, then twice as many
# each time, up to SHARE.
FIRST_SHARE, SHARE = 64, 2048


@dataclass(frozen=True)
class Settings:
    """How to label. See `Predictor` and `open_masker`. threads: CPU threads of the whole run."""

    model: str | Path
    threads: int
    threshold: Threshold = None
    flip: bool = False
    refine: str | None = None
    weights: str | None = None
    crops: str = "auto"
    decode: str = "cpu"
    slack: float = 0.0
    backend: str = AUTO
    second_pass: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise InputError(f"threads {self.threads}: expected 1 or more")
        if not isinstance(self.model, (str, Path)):
            raise InputError(f"model {self.model}: expected the path of a model file, or a name such as `bundled`")

    def facts(self) -> dict[str, str]:
        """What decides which masks come out, by name: a run that goes on must have the same."""
        return {
            "model": file_sha256(self.model),
            "decode": self.decode,
            "threshold": str(self.threshold),
            "flip": str(self.flip),
            "refine": str(self.refine),
            "weights": str(self.weights),
            **({"slack": str(self.slack)} if self.slack else {}),
            **({"second pass": "True"} if self.second_pass else {}),
        }

    def open(self, device: str, threads: int) -> tuple[Predictor, Masker]:
        """A predictor that may use `threads` CPU threads, and its masker; close the masker first."""
        predictor = Predictor(
            self.model,
            device,
            threshold=self.threshold,
            flip=self.flip,
            refine=self.refine,
            weights=self.weights,
            threads=network_threads(threads),
            slack=self.slack,
            backend=self.backend,
            lanes=lanes(threads),
        )
        try:
            return predictor, open_masker(predictor, self.crops, self.decode)
        except BaseException:
            predictor.close()
            raise


@dataclass(frozen=True)
class Opened:
    """What an open model says. provider: what really runs it. most: boxes in its largest batch, None = any number.
    facts: what a resumed run must have in common with this one. precision: in which it computes."""

    provider: str
    most: int | None
    facts: dict[str, str]
    precision: str


def open_workers(settings: Settings, device: str, images: str | Path, source: ImageSource) -> InProcess | Processes:
    """Workers for one device, or for several with commas between, such as "cuda:0,cuda:1"; to be closed.

    source: the pictures of `images`, which other processes open for themselves.
    """
    devices = [part.strip() for part in device.split(",")]
    return InProcess(settings, devices[0], source) if len(devices) == 1 else Processes(settings, devices, images)


class InProcess:
    """This process labels."""

    def __init__(self, settings: Settings, device: str, source: ImageSource) -> None:
        self._threads, self._source = settings.threads, source
        self._predictor, self._masker = settings.open(device, settings.threads)
        self.opened = _opened(self._predictor)

    def run(self, journal: Plan, batch: int, done: Callable[[int], None]) -> None:
        """Label all that is pending; `done` is called with how many boxes are safe now."""
        run_plan(journal, self._source, self._predictor, self._masker, batch, self._threads, done)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Predictor.notes`."""
        return self._predictor.notes

    def close(self) -> None:
        self._masker.close()
        self._predictor.close()


class Processes:
    """One process for each device labels; each gets whole batches of the plan, so the labels are those of one."""

    def __init__(self, settings: Settings, devices: Sequence[str], images: str | Path) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._children: list[_Child] = []
        threads = max(1, settings.threads // len(devices))
        try:
            for device in devices:
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(there, settings, device, threads, images), daemon=True)
                process.start()
                there.close()
                self._children.append(_Child(device, here, process))
            opened: list[Opened] = [child.receive(starting=True) for child in self._children]
        except BaseException:
            self.close()
            raise
        providers = list(dict.fromkeys(one.provider for one in opened))
        limits = [one.most for one in opened if one.most is not None]
        if len(providers) > 1:
            self.close()
            raise InputError(f"device {','.join(devices)}: they run the model differently ({', '.join(providers)})")
        self.opened = Opened(providers[0], min(limits, default=None), opened[0].facts, opened[0].precision)
        self.notes: tuple[str, ...] = ()

    def run(self, journal: Plan, batch: int, done: Callable[[int], None]) -> None:
        """See `InProcess.run`."""
        shares = _shares(journal)
        busy: dict[Any, _Child] = {}
        failure: MalTrtError | None = None

        def give(child: _Child) -> None:
            if share := next(shares, None):
                child.send((share, batch))
                busy[child.connection] = child

        try:
            for child in self._children:
                give(child)
            while busy:
                for connection in wait(list(busy)):
                    child = busy[connection]
                    try:
                        results = child.receive()
                    except MalTrtError as error:
                        failure, results = failure or error, None
                    if results is not None:
                        journal.add(results)
                        done(len(results))
                        continue
                    del busy[connection]
                    if failure is None:  # else what the others have under way is kept before it is raised
                        give(child)
        except BaseException:
            with suppress(MalTrtError):  # should the journal not take more, the first error says so
                for child in busy.values():
                    journal.add(child.finished())
            raise
        if failure is not None:
            raise failure
        said = [note for child in self._children for note in child.ask()]
        self.notes = tuple(dict.fromkeys(said))

    def close(self) -> None:
        for child in self._children:
            child.connection.close()
        for child in self._children:
            child.process.join(10)
            if child.process.is_alive():
                child.process.kill()
                child.process.join()


@dataclass(frozen=True)
class _Child:
    """A process and the way to it."""

    device: str
    connection: Connection
    process: BaseProcess

    def send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, starting: bool = False) -> Any:
        """Its next message; raises the error that it sent or died of."""
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            raise self._died(starting) from None
        if isinstance(message, MalTrtError):
            raise message
        return message

    def ask(self) -> tuple[str, ...]:
        """What the user should know of how the model ran there."""
        self.send(None)
        return tuple(self.receive())

    def finished(self) -> list[Result]:
        """The results that have arrived and were not read yet."""
        found: list[Result] = []
        with suppress(EOFError, OSError):
            while self.connection.poll():
                message = self.connection.recv()
                found += message if isinstance(message, list) else []
        return found

    def _died(self, starting: bool = False) -> RunError:
        self.process.join(5)
        if starting and self.process.exitcode == 1:  # Python has said why
            return RunError(
                f"device {self.device}: its process could not start; a script that labels on several devices must do "
                'so below `if __name__ == "__main__":`, and lie in a file'
            )
        return RunError(
            f"device {self.device}: its process ended with exit code {self.process.exitcode} (out of memory, or "
            "killed?); what is finished is kept, run again with --resume"
        )


class _Part:
    """A chunk of whole batches as a `Plan`: results go to the process that holds the journal."""

    def __init__(self, chunk: PlanChunk, connection: Connection) -> None:
        self._chunk, self._connection = chunk, connection

    def chunks(self) -> Iterator[PlanChunk]:
        yield self._chunk

    def add(self, results: Sequence[Result]) -> None:
        self._connection.send(results)


def _shares(journal: Plan) -> Iterator[PlanChunk]:
    """The pending boxes in whole batches, in the order of the plan, from FIRST_SHARE to SHARE boxes at a time."""
    boxes_now = min(FIRST_SHARE, SHARE)
    whole: list[PlanChunk] = []
    rest: list[PlanChunk] = []  # of batches whose last boxes are still to come
    for chunk in journal.chunks():
        chunk = PlanChunk.joined([*rest, chunk])
        numbers, of, boxes = np.unique(chunk.batch, return_inverse=True, return_counts=True)
        complete = (boxes == [chunk.batches[number][1] for number in numbers.tolist()])[of]
        ready = PlanChunk.joined([*whole, chunk.part(complete)])
        rest = [chunk.part(~complete)]
        while len(ready) >= boxes_now:
            share, ready = _split(ready, boxes_now)
            yield share
            boxes_now = min(2 * boxes_now, SHARE)
        whole = [ready]
    last = PlanChunk.joined([*whole, *rest]) if whole or rest else None
    if last:
        yield last


def _split(chunk: PlanChunk, boxes: int) -> tuple[PlanChunk, PlanChunk]:
    """The first batches of a chunk, with at least `boxes` boxes in all, and the other batches."""
    _, of, counts = np.unique(chunk.batch, return_inverse=True, return_counts=True)
    first = of <= np.searchsorted(np.cumsum(counts), boxes)
    return chunk.part(first), chunk.part(~first)


def _work(connection: Connection, settings: Settings, device: str, threads: int, images: str | Path) -> None:
    """A process: open the model, then label shares until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process with the journal decides when to stop
    try:
        source = open_images(images)
        predictor, masker = settings.open(device, threads)
        try:
            connection.send(_opened(predictor))
            while True:
                message = connection.recv()
                if message is None:
                    connection.send(predictor.notes)
                    continue
                chunk, batch = message
                run_plan(_Part(chunk, connection), source, predictor, masker, batch, threads)
                connection.send(None)
        finally:
            masker.close()
            predictor.close()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except MalTrtError as error:
        # Of the two kinds alone: others may not survive the way.
        _tell(connection, InputError(str(error)) if isinstance(error, InputError) else RunError(str(error)))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1].name
        _tell(connection, RunError(f"device {device}: {error!r} in {place}"))


def _tell(connection: Connection, error: MalTrtError) -> None:
    """An error to the process with the journal, which may be gone: another's error came first."""
    with suppress(OSError):
        connection.send(error)


def _opened(predictor: Predictor) -> Opened:
    return Opened(
        provider=predictor.provider,
        most=predictor.most,
        facts={
            "provider": predictor.provider,
            "threshold": TIGHT if predictor.tight else str(predictor.thresholds),
            "refine": predictor.refine,
        },
        precision=predictor.precision,
    )
