"""The tasks of one request of Label Studio on their way to the network, so that they do not crowd each other out."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from mal_trt.serve.inference import Inference, Result
from mal_trt.serve.queues import Overloaded

TASKS = 8  # whose pictures are held at once


class RequestTurns:
    """places: to be held while a task's picture is decoded and its masks are made."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._under_way = 0
        self._ended = asyncio.Event()
        self.places = asyncio.Semaphore(TASKS)

    async def masks(self, picture: np.ndarray, boxes: Any) -> list[Result]:
        """See `Inference.masks`. Where the tasks of this very request leave no room, one waits for the others;
        Overloaded says that others than they do."""
        while True:
            self._under_way += 1
            try:
                results = await self._inference.masks(picture, boxes)
            except Overloaded:
                self._under_way -= 1
                if not self._under_way:
                    raise
                await self._ended.wait()
                continue
            except BaseException:
                self._end()
                raise
            self._end()
            return results

    def _end(self) -> None:
        self._under_way -= 1
        self._ended.set()
        self._ended = asyncio.Event()
