"""What the page's routes of one server share: the open work, the model's drawing, and the task that draws what is
missing while nobody asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from mal_trt.base.errors import InputError, MalTrtError
from mal_trt.serve.annotations import Annotation
from mal_trt.serve.drawing import TOGETHER, Drawing
from mal_trt.serve.exporting import Exported
from mal_trt.serve.inference import Inference, Overloaded
from mal_trt.serve.picture_files import Picture
from mal_trt.serve.settings import ServeSettings
from mal_trt.serve.workspace import Workspace, open_workspace
from mal_trt.writers.options import Options

T = TypeVar("T")
PAUSE = 5.0  # seconds after a failure of the network
log = logging.getLogger(__name__)


class Desk:
    """The work of a server's page, opened when it is first needed, or at once if the server was given boxes.

    InputError if it cannot be.
    """

    def __init__(self, settings: ServeSettings, inference: Inference, pool: ThreadPoolExecutor) -> None:
        self._settings, self._inference, self._pool = settings, inference, pool
        self._open: tuple[Workspace, Drawing] | None = None
        self._opening: asyncio.Task[tuple[Workspace, Drawing]] | None = None
        self._parts: dict[int, asyncio.Task[None]] = {}
        self._exporting = asyncio.Lock()
        self._drawer: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        if settings.boxes is not None:  # what is wrong with them ends the start
            self._open = self._opened()

    async def work(self) -> Workspace:
        """The open work. Opening it goes on when who asked first is gone; it is tried again if it failed."""
        if self._open is None:
            if self._opening is None or (self._opening.done() and self._opening.exception()):
                self._opening = _task(self.in_pool(self._opened))
            self._open = await asyncio.shield(self._opening)
        return self._open[0]

    async def in_pool(self, function: Callable[..., T], *given: object) -> T:
        """The result of a function that reads or writes files."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *given)

    async def exported(self, format: str, options: Options, accepted: bool) -> tuple[int, Exported]:
        """See `Workspace.export`; one after the other, so that threads are left for those who go on."""
        work = await self.work()
        async with self._exporting:
            return await self.in_pool(work.export, format, options, accepted)

    async def drawn(self, picture: Picture, annotations: list[Annotation]) -> list[Annotation]:
        """See `Drawing.drawn`."""
        await self.work()
        assert self._open is not None
        return await self._open[1].drawn(picture, annotations)

    async def draw_missing(self, picture: int) -> None:
        """Let the model draw masks that are missing in a picture, TOGETHER at most, and keep them. All who ask for one
        picture at a time wait for the same masks, which are kept whoever of them goes."""
        part = self._parts.get(picture)
        if part is None:
            part = self._parts[picture] = _task(self._draw_part(picture))
            part.add_done_callback(lambda _: self._parts.pop(picture))
        await asyncio.shield(part)

    async def _draw_part(self, picture: int) -> None:
        work = await self.work()
        row = await self.in_pool(work.files.measured, picture)
        missing = [one for one in await self.in_pool(work.journal.annotations, picture) if one.undrawn]
        if missing:
            await self.in_pool(work.journal.draw, await self.drawn(row, missing[:TOGETHER]))

    def draw_on(self) -> None:
        """Draw what is missing in all pictures, while there is nothing else to do."""
        self._more.set()
        if self._drawer is None or self._drawer.done():
            self._drawer = asyncio.get_running_loop().create_task(self._draw())

    def close(self) -> None:
        """Keep what is there, and draw no more."""
        for task in (self._drawer, *self._parts.values()):
            if task is not None:
                task.cancel()
        if self._open is not None:
            self._open[0].close()

    def _opened(self) -> tuple[Workspace, Drawing]:
        work = open_workspace(self._settings)
        together = min(TOGETHER, self._settings.limits.queue)
        return work, Drawing(self._inference, work.files, self._pool, together)

    async def _draw(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            work = await self.work()
            while (picture := await self.in_pool(work.next_undrawn)) is not None:
                try:
                    await self.draw_missing(picture)
                except Overloaded as error:  # people and programs come first
                    await asyncio.sleep(error.retry_after)
                except InputError as error:
                    with suppress(MalTrtError):
                        await self.in_pool(work.set_problem, picture, str(error).partition(": ")[2] or str(error))
                except MalTrtError as error:
                    log.error("picture %d: %s", picture, error)
                    await asyncio.sleep(PAUSE)


def _task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task whose failure may be told to nobody, when all who asked for it have gone."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
