"""Whether the server is there and ready, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mal_trt.serve.answers import error_answer
from mal_trt.serve.state import state_of

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=JSONResponse, summary="The process answers")
async def healthz() -> Response:
    """200 as long as the process answers. Needs no token."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", response_class=JSONResponse, summary="Boxes are taken")
async def readyz(request: Request) -> Response:
    """200 if boxes are taken, 503 while the server is being stopped or cannot label. Needs no token."""
    state = state_of(request)
    if state.stopping or not state.inference.running:
        return error_answer(503, "the server is being stopped" if state.stopping else "the model does not run")
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, seconds, boxes, batches and what waits, in Prometheus's text format."""
    return Response(state_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
