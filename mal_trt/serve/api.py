"""Masks over HTTP: `/v1/label`, and which model draws them."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, Field

from mal_trt.base.errors import InputError
from mal_trt.geometry.local_mask import LocalMask
from mal_trt.geometry.rle import decode_rle, run_lengths
from mal_trt.serve.inference import Result
from mal_trt.serve.label_request import LabelRequest, LabelRequestForm, LabelRequestJson, read_label_request
from mal_trt.serve.pictures import decoded
from mal_trt.serve.state import State, state_of
from mal_trt.writers.losses import FormatLoss
from mal_trt.writers.options import Options
from mal_trt.writers.shapes import edge_lines

router = APIRouter(prefix="/v1", tags=["labelling"])


class MaskAnswer(BaseModel):
    """One mask."""

    score: float = Field(description="How sure the network is of the mask, 0 to 1: its IoU with its own probabilities.")
    area: int = Field(description="Pixels of the mask. 0: it is empty, because the box lies outside the picture, say.")
    segmentation: dict[str, Any] | list[list[float]] | None = Field(
        None, description="COCO's compressed RLE, or polygons, as `output` asks."
    )
    png: str | None = Field(None, description="With `output` png: a PNG of the window, as base64; null if empty.")
    left: int | None = Field(None, description="With `output` png: the window's first column in the picture.")
    top: int | None = Field(None, description="With `output` png: the window's first row in the picture.")


class LabelAnswer(BaseModel):
    """The masks of one picture, in the order of its boxes."""

    width: int
    height: int
    masks: list[MaskAnswer]


class ModelAnswer(BaseModel):
    """A model that the server runs, and what it says about itself."""

    name: str
    arch: str
    precision: str
    input_size: int
    thresholds: tuple[float, float, float] = Field(description="For small, medium and large boxes, as used here.")
    refine: str
    providers: list[str] = Field(description="What runs it, for each device.")


class ErrorAnswer(BaseModel):
    """Why there is no answer: what is wrong, and what to do."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The request cannot be used; the text says why."},
    413: {"model": ErrorAnswer, "description": "The body is larger than the limit."},
    415: {"model": ErrorAnswer, "description": "A content type that is not taken."},
    503: {"model": ErrorAnswer, "description": "Too much is waiting; try again after `Retry-After` seconds."},
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": LabelRequestForm.model_json_schema()},
            "application/json": {"schema": LabelRequestJson.model_json_schema()},
        },
    }
}


@router.post("/label", response_model=LabelAnswer, responses=ERRORS, openapi_extra=BODY, summary="Masks for boxes")
async def label(request: Request) -> Response:
    """Draw the masks of the boxes of one picture. They equal those of `mal_trt.Labeler`."""
    state = state_of(request)
    loop = asyncio.get_running_loop()
    with state.inference.expecting():
        asked, image = await read_label_request(request)
        check_count(len(asked.boxes), state)
        picture = await loop.run_in_executor(state.pool, _picture, state, image)
        found = asyncio.ensure_future(state.inference.masks(picture, asked.boxes, asked.box_format))
        await asyncio.sleep(0)  # until its boxes wait
    results = await found
    height, width = picture.shape[:2]
    if asked.output == "rle" and asked.threshold is None:
        masks = _masks(results, asked, state)
    else:
        masks = await loop.run_in_executor(state.pool, _masks, results, asked, state)
    return JSONResponse({"width": width, "height": height, "masks": masks}, headers={"cache-control": "no-store"})


@router.get("/models", response_model=list[ModelAnswer], summary="The model")
async def models(request: Request) -> Any:
    """The models that the server runs: one."""
    inference = state_of(request).inference
    contract = inference.contract
    return [
        ModelAnswer(
            name=inference.path.name,
            arch=contract.arch,
            precision=contract.precision,
            input_size=contract.input_size,
            thresholds=inference.predictor.thresholds,
            refine=inference.predictor.refine,
            providers=inference.providers,
        )
    ]


def check_count(boxes: int, state: State) -> None:
    """InputError if one request has more boxes than the limit."""
    if boxes > (most := state.settings.limits.boxes):
        raise InputError(f"{boxes} boxes; the limit is {most} a request")


def _picture(state: State, image: bytes | str) -> np.ndarray:
    if isinstance(image, str):
        return state.pictures.pixels(image)
    return decoded(image, state.settings.limits.pixels)


def _masks(results: Sequence[Result], asked: LabelRequest, state: State) -> list[dict[str, Any]]:
    return [_mask(state.inference.at(result, asked.threshold), asked) for result in results]


def _mask(result: Result, asked: LabelRequest) -> dict[str, Any]:
    about: dict[str, Any] = {"score": result.score, "area": int(run_lengths(result.rle)[1::2].sum())}
    if asked.output == "rle":
        return {**about, "segmentation": result.rle}
    local = decode_rle(result.rle)
    if asked.output == "polygons":
        lines = edge_lines(local, Options(simplify=asked.simplify), FormatLoss()) if about["area"] else []
        return {**about, "segmentation": [line.reshape(-1).tolist() for line in lines]}
    return {**about, "png": _png(local) if about["area"] else None, "left": local.x0, "top": local.y0}


def _png(local: LocalMask) -> str:
    stream = io.BytesIO()
    Image.fromarray(local.mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
