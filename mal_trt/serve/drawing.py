"""The masks of the page's objects, drawn by the model as for everybody else; what was drawn lately is kept, so that a
threshold can follow a slider without the network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from mal_trt.base.errors import InputError
from mal_trt.geometry.rle import RLE, compress, run_lengths
from mal_trt.serve.annotations import BRUSH, MODEL, Annotation
from mal_trt.serve.inference import Inference, Result
from mal_trt.serve.picture_files import Picture, PictureFiles
from mal_trt.serve.recent import Recent

KEPT = 512  # results whose logits are kept: at most 64 KB each with a crop of 512
TOGETHER = 32  # boxes of one picture that wait for the network at once, where the queue has room for them
Box = tuple[float, float, float, float]


class Drawing:
    """Draws masks for boxes of pictures. pool: threads for what would hold up the event loop. together: boxes of one
    picture that may wait for the network at once."""

    def __init__(
        self, inference: Inference, files: PictureFiles, pool: ThreadPoolExecutor, together: int = TOGETHER
    ) -> None:
        self._inference, self._files, self._pool, self._together = inference, files, pool, together
        self._kept: Recent[tuple[int, Box], Result] = Recent(KEPT)

    async def drawn(self, picture: Picture, annotations: Sequence[Annotation]) -> list[Annotation]:
        """The objects of a measured picture with the model's masks, as their boxes and thresholds are.

        InputError if the picture cannot be read, Overloaded if too many boxes wait, RunError if the network fails.
        """
        loop = asyncio.get_running_loop()
        results = {one.box: found for one in annotations if (found := self._kept.get((picture.id, one.box)))}
        missing = list(dict.fromkeys(one.box for one in annotations if one.box not in results))
        if missing:
            with self._inference.expecting():
                pixels = await loop.run_in_executor(self._pool, self._files.pixels, picture)
            for start in range(0, len(missing), self._together):
                part = missing[start : start + self._together]
                for box, result in zip(part, await self._inference.masks(pixels, part), strict=True):
                    results[box] = self._kept.keep((picture.id, box), result)
        return await loop.run_in_executor(self._pool, self._finished, annotations, results)

    def _finished(self, annotations: Sequence[Annotation], results: dict[Box, Result]) -> list[Annotation]:
        finished = []
        for one in annotations:
            found = self._inference.at(results[one.box], one.threshold)
            counts, area = str(found.rle["counts"]), area_of(found.rle)
            finished.append(replace(one, source=MODEL, score=found.score, counts=counts, area=area))
        return finished


def area_of(rle: RLE) -> int:
    """Foreground pixels of an RLE."""
    return int(run_lengths(rle)[1::2].sum())


def brushed(one: Annotation, runs: Sequence[int], height: int, width: int) -> Annotation:
    """An object with a mask that a person drew. runs: COCO's run lengths of the whole picture; InputError if they are
    none."""
    lengths = np.asarray(runs, np.int64)
    if not lengths.size or np.any(lengths < 0) or np.any(lengths[1:] == 0) or int(lengths.sum()) != height * width:
        raise InputError(f"counts: expected run lengths that add up to {height * width}, the picture's pixels")
    rle = compress(lengths, height, width)
    return replace(one, source=BRUSH, counts=str(rle["counts"]), area=area_of(rle), score=None)
