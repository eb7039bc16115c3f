"""The routes of a Label Studio ML backend: rectangles come in, brushes or polygons go out."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from mal_trt.base.errors import InputError
from mal_trt.geometry.rle import decode_rle
from mal_trt.serve.api import check_count
from mal_trt.serve.inference import Result
from mal_trt.serve.label_studio_pictures import TaskPictures
from mal_trt.serve.label_studio_task import Config, Rectangle, read_config, rectangles
from mal_trt.serve.label_studio_turns import RequestTurns
from mal_trt.serve.pictures import decoded
from mal_trt.serve.state import State, state_of
from mal_trt.writers.label_studio import mask_regions
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options

router = APIRouter(tags=["Label Studio"])
VERSION = "mal-trt"
log = logging.getLogger(__name__)


@router.get("/health", response_class=JSONResponse, summary="What Label Studio asks when it connects")
async def health() -> Response:
    """The server is there."""
    return JSONResponse({"status": "UP", "model_class": VERSION})


@router.post("/setup", response_class=JSONResponse, summary="A project connects")
async def setup(request: Request) -> Response:
    """Check the project's labelling configuration, and say the model's version."""
    document = await _document(request)
    if document.get("schema"):
        read_config(document["schema"])
    return JSONResponse({"model_version": _version(state_of(request))})


@router.post("/predict", response_class=JSONResponse, summary="Masks for the rectangles of tasks")
async def predict(request: Request) -> Response:
    """For each task the masks of its rectangles: those just drawn, or those of its annotations or predictions."""
    document = await _document(request)
    state = state_of(request)
    tasks = document.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError("tasks: expected a list of tasks")
    config = read_config(document.get("label_config"))
    params = document.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    wanted = [list(rectangles(task, context)) for task in tasks]
    check_count(sum(map(len, wanted)), state)
    source, turns = TaskPictures(state.settings, state.pictures), RequestTurns(state.inference)
    found = await asyncio.gather(
        *(_one(state, source, turns, config, task, boxes) for task, boxes in zip(tasks, wanted, strict=True)),
        return_exceptions=True,
    )
    errors = [one for one in found if isinstance(one, BaseException)]
    if errors and (len(errors) == len(found) or not all(isinstance(error, InputError) for error in errors)):
        raise errors[0]
    for error in errors:  # of one picture of many; the others have their masks
        log.warning("a task is left without masks: %s", error)
    results = [_nothing(state) if isinstance(one, BaseException) else one for one in found]
    return JSONResponse({"results": results, "model_version": _version(state)})


@router.post("/webhook", response_class=JSONResponse, summary="Events of a project")
async def webhook(request: Request) -> Response:
    """Nothing is learnt from events."""
    await request.body()
    return JSONResponse({"status": "ok"})


async def _document(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise InputError("the body is not JSON") from None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object")
    return document


async def _one(
    state: State,
    source: TaskPictures,
    turns: RequestTurns,
    config: Config,
    task: dict[str, Any],
    boxes: list[Rectangle],
) -> dict[str, Any]:
    if not boxes:
        return _nothing(state)
    data = task.get("data")
    address = data.get(config.data) if isinstance(data, dict) else None
    if not isinstance(address, str) or not address:
        raise InputError(f"task {str(task.get('id'))[:40]}: its data has no {config.data!r}")
    loop = asyncio.get_running_loop()
    size = next((box.size for box in boxes if box.size), None)

    def picture() -> np.ndarray:
        return decoded(source.content(address), state.settings.limits.pixels, size)

    async with turns.places:
        with state.inference.expecting():
            pixels = await loop.run_in_executor(state.pool, picture)
        height, width = pixels.shape[:2]
        # Rounded, a side that was at a whole pixel before it became percent is there again.
        at = [np.round(np.multiply(box.box, (width, height) * 2), 6).tolist() for box in boxes]
        results = await turns.masks(pixels, at)
    regions = await loop.run_in_executor(state.pool, _regions, results, boxes, config, (width, height))
    score = sum(result.score for result in results) / len(results)
    return {"model_version": _version(state), "score": round(score, 4), "result": regions}


def _regions(
    results: list[Result], boxes: list[Rectangle], config: Config, size: tuple[int, int]
) -> list[dict[str, Any]]:
    options, losses = Options(simplify=config.simplify), FormatLoss()
    regions = []
    for result, box in zip(results, boxes, strict=True):
        local = decode_rle(result.rle)
        if local.mask.size:
            names = [label for label in box.labels if label in config.labels] or box.labels
            for region in mask_regions(local, size, f"mask-{box.key}", names, options, losses, config.tags):
                regions.append({**region, "score": result.score, "readonly": False})
    return regions


def _nothing(state: State) -> dict[str, Any]:
    return {"model_version": _version(state), "score": 0.0, "result": []}


def _version(state: State) -> str:
    return f"{VERSION} {state.inference.path.stem}"
